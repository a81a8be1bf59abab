// Many runs in one call.
import { batch, idempotencyKeys, runs, tasks } from '@trigger.dev/sdk';
import { check, part, same, until } from '../lib.mjs';
import { ids, ONCE, PATIENCE, reaches, refusal } from './common.mjs';

export async function batches({ mark }) {
  const tag = `${mark}-batch`;
  const items = [1, 2, 3].map((n) => ({ payload: { n }, options: { tags: [tag, `n:${n}`] } }));
  const handle = await part('batchTrigger', () => tasks.batchTrigger('ok', items));
  same('batchTrigger: count', handle.runCount, 3);
  const made = await part('batch.retrieve', () =>
    until('batch.retrieve: completed', PATIENCE, async () => {
      const made = await batch.retrieve(handle.batchId);
      return made.status === 'COMPLETED' ? { done: made } : { seen: made.status };
    }),
  );
  same('batch.retrieve: its runs', [made.runCount, made.runs.length], [3, 3]);
  for (const [at, id] of made.runs.entries()) {
    const run = await reaches(id, 'COMPLETED');
    same(`batch: run ${at} has its payload`, run.output, { payload: { n: at + 1 } });
    same(`batch: run ${at} knows it`, [run.batchId, run.triggerFunction], [handle.batchId, 'batchTrigger']);
  }
  same('runs.list: by batch', ids(await runs.list({ batch: handle.batchId })).sort(), [...made.runs].sort());

  // Several tasks in one batch, and keys of single items.
  const key = await idempotencyKeys.create(`${mark}-item`, { scope: 'global' });
  const mixed = () =>
    batch.trigger([
      { id: 'ok', payload: { n: 1 }, options: { idempotencyKey: key } },
      { id: 'refuse', payload: {}, options: { maxAttempts: 1 } },
    ]);
  const first = await batch.retrieve((await part('batch.trigger: several tasks', mixed)).batchId);
  const second = await batch.retrieve((await part('batch.trigger: again', mixed)).batchId);
  same('batch: an item with a key is the same run', second.runs[0], first.runs[0]);
  check('batch: one without is another', second.runs[1] !== first.runs[1], 'it is the same run');
  await reaches(first.runs[1], 'FAILED');
  const again = await part('batch.triggerByTask', () => batch.triggerByTask([{ task: { id: 'ok' }, payload: {} }]));
  same('batch.triggerByTask', again.runCount, 1);
  same('batch.retrieve: none such', await refusal(batch.retrieve('batch_none', ONCE)), 404);
}
