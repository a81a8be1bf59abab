// What a key does in every state that its run can be in, and what its time to live does there.
import { idempotencyKeys, runs, tasks } from '@trigger.dev/sdk';
import { check, part, same } from '../lib.mjs';
import { reaches } from './common.mjs';

/** For each state: the task, how to get a run there, and whether the key is kept. */
const STATES = {
  PENDING_VERSION: { task: 'never-deployed', kept: true, open: true },
  DELAYED: { task: 'ok', options: { delay: '1h' }, kept: true, open: true },
  EXECUTING: { task: 'hang', kept: true, open: true },
  QUEUED: { task: 'hang', behind: true, kept: true, open: true },
  COMPLETED: { task: 'ok', kept: true },
  CANCELED: { task: 'ok', options: { delay: '1h' }, cancel: true, kept: true },
  FAILED: { task: 'refuse', options: { maxAttempts: 1 }, kept: false },
  CRASHED: { task: 'crash', options: { maxAttempts: 1 }, kept: false },
  TIMED_OUT: { task: 'hang', options: { maxDuration: 5 }, kept: false },
  EXPIRED: { task: 'hang', behind: true, options: { ttl: '1s' }, kept: false },
};
/** Seconds that a key lives where its end is looked at, and milliseconds after which it has ended. */
const SHORT = '2s';
const AFTER_SHORT = 2_300;

export async function idempotency({ mark }) {
  for (const [state, way] of Object.entries(STATES)) await inState(mark, state, way);
  await Promise.all(
    ['PENDING_VERSION', 'DELAYED', 'EXECUTING', 'QUEUED', 'COMPLETED', 'CANCELED'].map((state) => ended(mark, state, STATES[state])),
  );
  await resets(mark);
  await apart(mark);
}

/** A run in this state under this key: [its id, what to cancel at the end, how it was triggered]. */
async function bring(name, state, { task, options = {}, behind, cancel }, more) {
  const key = await idempotencyKeys.create(name, { scope: 'global' });
  const all = { ...options, ...more, idempotencyKey: key };
  const used = [];
  // One at a time for each key of concurrency: `behind` another one, a run stays queued.
  if (task === 'hang') all.concurrencyKey = name;
  if (behind) {
    const first = await tasks.trigger('hang', {}, { concurrencyKey: name });
    await reaches(first.id, 'EXECUTING');
    used.push(first.id);
  }
  const trigger = () => tasks.trigger(task, {}, all);
  const { id } = await part(`idempotency: ${state}`, trigger);
  used.push(id);
  if (cancel) await runs.cancel(id);
  await reaches(id, state);
  return { id, used, trigger };
}

async function stop(used) {
  await Promise.all(used.map((id) => runs.cancel(id)));
}

async function inState(mark, state, way) {
  const { id, used, trigger } = await bring(`${mark}-${state}`, state, way, {});
  const again = (await part(`idempotency: ${state}, again`, trigger)).id;
  check(`idempotency: ${state} ${way.kept ? 'keeps' : 'gives back'} its key`, (again === id) === way.kept, `${id}, then ${again}`);
  if (way.open) same(`idempotency: ${state} stays so`, (await runs.retrieve(id)).status, state);
  await stop([...used, again]);
}

/** However a run stands, its key ends with its time; the run itself does not. */
async function ended(mark, state, way) {
  const { id, used, trigger } = await bring(`${mark}-${state}-ttl`, state, way, { idempotencyKeyTTL: SHORT });
  await new Promise((resolve) => setTimeout(resolve, AFTER_SHORT));
  const again = (await part(`idempotency: ${state}, after its time`, trigger)).id;
  check(`idempotency: ${state}, a key ends with its time`, again !== id, 'it is the same run');
  same(`idempotency: ${state}, its run goes on`, (await runs.retrieve(id)).status, state);
  await stop([...used, again]);
}

async function resets(mark) {
  const name = `${mark}-reset`;
  const key = await idempotencyKeys.create(name, { scope: 'global' });
  const trigger = async () => (await tasks.trigger('ok', {}, { idempotencyKey: key, delay: '1h' })).id;
  const first = await trigger();
  same('idempotencyKeys: shown as it was written', (await runs.retrieve(first)).idempotencyKey, name);
  await part('idempotencyKeys.reset', () => idempotencyKeys.reset('ok', key));
  const second = await trigger();
  check('idempotencyKeys.reset: frees the key', second !== first, 'it is the same run');
  same('idempotencyKeys.reset: the run goes on', (await runs.retrieve(first)).status, 'DELAYED');
  await stop([first, second]);
}

/** A key is one task's; two that ask at once get one run. */
async function apart(mark) {
  const key = await idempotencyKeys.create(`${mark}-apart`, { scope: 'global' });
  const options = { idempotencyKey: key, delay: '1h' };
  const [ok, other] = await Promise.all([tasks.trigger('ok', {}, options), tasks.trigger('refuse', {}, options)]);
  check('idempotency: each task has its own keys', ok.id !== other.id, 'it is the same run');
  const many = await Promise.all(Array.from({ length: 10 }, () => tasks.trigger('ok', {}, options)));
  same('idempotency: ten at once are one run', [...new Set(many.map(({ id }) => id))], [ok.id]);
  await stop([ok.id, other.id]);
}
