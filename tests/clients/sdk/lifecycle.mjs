// One run: triggered, put off, moved, cancelled, replayed, and what it looks like at each end.
import { runs, tasks } from '@trigger.dev/sdk';
import { check, part, same } from '../lib.mjs';
import { as, ONCE, reaches, refusal } from './common.mjs';

export async function lifecycle({ baseURL, mark }) {
  await ends(baseURL, mark);
  await delayed(mark);
  await cancelled(mark);
  await replayed(mark);
}

async function ends(baseURL, mark) {
  const payload = { text: 'ä "quoted" \u2028', list: [1, null, { deep: true }] };
  const options = { tags: [mark, 'b:2', 'a:1'], metadata: { origin: 'suite' }, maxAttempts: 2, priority: 1 };
  const { id } = await part('trigger', () => tasks.trigger('ok', payload, options));
  const run = await reaches(id, 'COMPLETED');
  same('retrieve: payload and output', [run.payload, run.output], [payload, { payload }]);
  same('retrieve: tags, in order', run.tags, ['a:1', 'b:2', mark]);
  same('retrieve: metadata', run.metadata, { origin: 'suite' });
  same('retrieve: flags', [run.isCompleted, run.isSuccess, run.isFailed, run.isQueued], [true, true, false, false]);
  check('retrieve: dates', run.createdAt <= run.startedAt && run.startedAt <= run.finishedAt, JSON.stringify(run));
  same('poll', (await part('poll', () => runs.poll(id, { pollIntervalMs: 100 }))).status, 'COMPLETED');

  // What JavaScript has and JSON has not goes through the SDK's own serialisation.
  const dated = await tasks.trigger('ok', { at: new Date(0), big: 9007199254740993n });
  const shown = await reaches(dated.id, 'COMPLETED');
  same('trigger: dates and big numbers arrive as text', shown.output, { payload: { at: '1970-01-01T00:00:00.000Z', big: '9007199254740993' } });

  for (const [task, status, failed] of [['refuse', 'FAILED', true], ['crash', 'CRASHED', true]]) {
    const { id } = await part(`trigger ${task}`, () => tasks.trigger(task, {}, { maxAttempts: 1 }));
    const run = await reaches(id, status);
    same(`${status}: flags`, [run.isFailed, run.isSuccess], [failed, false]);
    check(`${status}: says why`, run.error?.message?.length > 0, JSON.stringify(run.error));
  }
  const late = await part('maxDuration', () => tasks.trigger('hang', {}, { maxDuration: 5, concurrencyKey: `${mark}-late` }));
  const timedOut = await reaches(late.id, 'TIMED_OUT');
  same('TIMED_OUT: flags', [timedOut.isFailed, timedOut.isCompleted], [false, false]);

  same('retrieve: a run that is not there', await refusal(runs.retrieve('run_00000000000000000000000000', ONCE)), 404);
  same('a wrong key', await refusal(as(baseURL, 'tr_prod_none', () => runs.retrieve(id, ONCE))), 401);
  const missing = await part('trigger: a task that is not deployed', () => tasks.trigger(`${mark}-none`, {}));
  same('PENDING_VERSION', (await runs.retrieve(missing.id)).status, 'PENDING_VERSION');
  await runs.cancel(missing.id);
}

async function delayed(mark) {
  const { id } = await part('delay', () => tasks.trigger('ok', {}, { delay: '2h', ttl: 3_600, tags: [mark] }));
  const run = await runs.retrieve(id);
  same('delay: status, ttl', [run.status, run.ttl], ['DELAYED', '3600s']);
  check('delay: two hours', Math.abs(run.delayedUntil - Date.now() - 7_200_000) < 60_000, `${run.delayedUntil}`);
  const moved = await part('reschedule', () => runs.reschedule(id, { delay: new Date(Date.now() + 86_400_000) }));
  check('reschedule: a day', moved.delayedUntil - run.delayedUntil > 70_000_000, `${moved.delayedUntil}`);
  same('reschedule: no date', await refusal(runs.reschedule(id, { delay: 'soonish' }, ONCE)), 400);
  same('reschedule: still as it was', (await runs.retrieve(id)).delayedUntil, moved.delayedUntil);
  await part('reschedule: to now', () => runs.reschedule(id, { delay: '1s' }));
  await reaches(id, 'COMPLETED');
  same('reschedule: a run that is not delayed', await refusal(runs.reschedule(id, { delay: '1h' }, ONCE)), 400);
  const date = new Date(Date.now() + 1_500);
  const exact = await part('delay: a date', () => tasks.trigger('ok', {}, { delay: date }));
  same('delay: a date', (await runs.retrieve(exact.id)).delayedUntil.getTime(), date.getTime());
  const started = await reaches(exact.id, 'COMPLETED');
  check('delay: not before', started.startedAt >= date, `${started.startedAt} is before ${date}`);
}

/** In each state from which a run can still be stopped, and in one from which it cannot. */
async function cancelled(mark) {
  const hang = { concurrencyKey: `${mark}-cancel` };
  const executing = await tasks.trigger('hang', {}, hang);
  await reaches(executing.id, 'EXECUTING');
  const queued = await tasks.trigger('hang', {}, hang);
  await reaches(queued.id, 'QUEUED');
  const delayed = await tasks.trigger('ok', {}, { delay: '1h' });
  for (const [state, { id }] of Object.entries({ DELAYED: delayed, QUEUED: queued, EXECUTING: executing })) {
    same(`cancel: ${state}`, (await part(`cancel: ${state}`, () => runs.cancel(id))).id, id);
    const run = await runs.retrieve(id);
    // The vendor counts a cancelled run among the failed ones.
    same(`cancel: ${state}, then`, [run.status, run.isCancelled, run.isFailed], ['CANCELED', true, true]);
    same(`cancel: ${state}, again`, (await runs.cancel(id)).id, id);
  }
  const done = await tasks.trigger('ok', {});
  await reaches(done.id, 'COMPLETED');
  await runs.cancel(done.id);
  same('cancel: a run that has ended stays', (await runs.retrieve(done.id)).status, 'COMPLETED');
  same('cancel: no such run', await refusal(runs.cancel('run_00000000000000000000000000', ONCE)), 404);
}

async function replayed(mark) {
  const old = await tasks.trigger('ok', { n: 1 }, { tags: [mark, 'replay'], idempotencyKey: `${mark}-replay`, concurrencyKey: 'k' });
  await reaches(old.id, 'COMPLETED');
  const first = await part('replay', () => runs.replay(old.id));
  const second = await part('replay: again', () => runs.replay(old.id));
  same('replay: each is a run of its own', new Set([old.id, first.id, second.id]).size, 3);
  const run = await reaches(first.id, 'COMPLETED');
  same('replay: payload and tags come along', [run.payload, run.tags], [{ n: 1 }, ['replay', mark]]);
  same('replay: the key does not', run.idempotencyKey, undefined);
  const failed = await tasks.trigger('refuse', {}, { maxAttempts: 1 });
  await reaches(failed.id, 'FAILED');
  await reaches((await part('replay: a failure', () => runs.replay(failed.id))).id, 'FAILED');

  const other = { payload: { n: 2 }, tags: ['changed'], metadata: { why: 'replay' }, delay: '1h', ttl: '10m', machine: 'micro' };
  const changed = await part('replay: with other options', () => runs.replay(old.id, other));
  const shown = await runs.retrieve(changed.id);
  same(
    'replay: with other options',
    [shown.status, shown.payload, shown.tags, shown.metadata, shown.ttl],
    ['DELAYED', { n: 2 }, ['changed'], { why: 'replay' }, '10m'],
  );
  const keyed = { idempotencyKey: `${mark}-replayed` };
  const once = await part('replay: under a key', () => runs.replay(old.id, keyed));
  same('replay: under a key, again', (await runs.replay(old.id, keyed)).id, once.id);
  await runs.cancel(changed.id);
  same('replay: no such run', await refusal(runs.replay('run_00000000000000000000000000', {}, ONCE)), 404);
}
