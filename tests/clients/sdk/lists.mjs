// Every filter of `runs.list`, alone and together, and pages in both directions.
import { runs, tasks } from '@trigger.dev/sdk';
import { check, part, same } from '../lib.mjs';
import { all, as, ids, ONCE, reaches, refusal } from './common.mjs';

const HOUR = 3_600_000;

export async function lists(hub) {
  const tag = `${hub.mark}-list`;
  const made = await make(hub, tag);
  await filters(hub, tag, made);
  await pages(tag, Object.values(made));
  await runs.cancel(made.later);
  same('runs.list: a state that does not exist', await refusal(runs.list({ status: 'DONE', ...ONCE })), 400);
}

/** One run for each thing that a list can ask for. */
async function make({ baseURL, key, oldVersion }, tag) {
  const trigger = async (task, options) => (await tasks.trigger(task, {}, { ...options, tags: [tag, ...(options.tags ?? [])] })).id;
  const made = { plain: await trigger('ok', { tags: ['even'] }) };
  made.failed = await trigger('refuse', { maxAttempts: 1, tags: ['odd'] });
  made.small = await trigger('ok', { machine: 'micro' });
  made.queued = await trigger('ok', { queue: 'custom' });
  made.old = await trigger('ok', { version: oldVersion });
  made.later = await trigger('ok', { delay: '3h' });
  // The SDK itself has no word for it: the dashboard's test page and the CLI do.
  const reply = await fetch(`${baseURL}/api/v1/tasks/ok/trigger`, {
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: JSON.stringify({ payload: {}, options: { test: true, tags: [tag] } }),
  });
  made.test = (await reply.json()).id;
  for (const name of ['plain', 'small', 'queued', 'old', 'test']) await reaches(made[name], 'COMPLETED');
  await reaches(made.failed, 'FAILED');
  return made;
}

async function filters({ baseURL, oldVersion, scheduledRun, project, token }, tag, made) {
  const now = Date.now();
  const every = Object.keys(made);
  const except = (...names) => every.filter((name) => !names.includes(name));
  const current = (await runs.retrieve(made.plain)).version;
  check('runs: their version', current !== oldVersion && /^\d{8}\.\d+$/.test(current), current);
  for (const [name, filter, expected] of [
    ['nothing else', {}, every],
    ['status', { status: 'DELAYED' }, ['later']],
    ['several statuses', { status: ['DELAYED', 'FAILED'] }, ['failed', 'later']],
    ['another status', { status: 'WAITING' }, []],
    ['task', { taskIdentifier: 'refuse' }, ['failed']],
    ['several tasks', { taskIdentifier: ['refuse', 'ok'] }, every],
    ['another task', { taskIdentifier: 'okay' }, []],
    ['version', { version: oldVersion }, ['old']],
    // A run has no version before it starts, unless it is locked to one.
    ['several versions', { version: [oldVersion, current] }, except('later')],
    ['another version', { version: '20010101.1' }, []],
    ['is a test', { isTest: true }, ['test']],
    ['is no test', { isTest: false }, except('test')],
    ['queue of a task', { queue: { type: 'task', name: 'refuse' } }, ['failed']],
    ['queue with a name', { queue: { type: 'custom', name: 'custom' } }, ['queued']],
    ['several queues', { queue: [{ type: 'task', name: 'refuse' }, { type: 'custom', name: 'custom' }] }, ['failed', 'queued']],
    ['machine', { machine: 'micro' }, ['small']],
    ['the usual machine', { machine: ['small-1x'] }, except('small')],
    ['from', { from: new Date(now - HOUR) }, every],
    ['from, as a number', { from: now + HOUR }, []],
    ['to', { to: new Date(now - HOUR) }, []],
    ['from and to', { from: now - HOUR, to: now + HOUR }, every],
    ['period', { period: '1h' }, every],
    ['batch', { batch: 'batch_none' }, []],
    ['schedule', { schedule: 'sched_none' }, []],
    ['region', { region: 'us-east-1' }, []],
    ['bulk action', { bulkAction: 'bulk_none' }, []],
    ['all at once', { status: 'COMPLETED', taskIdentifier: 'ok', version: current, isTest: false, period: '1h', machine: 'micro' }, ['small']],
  ]) {
    const found = await part(`runs.list: by ${name}`, () => runs.list({ tag, limit: 50, ...filter }));
    const names = ids(found).map((id) => every.find((name) => made[name] === id) ?? id);
    same(`runs.list: by ${name}`, names.sort(), [...expected].sort());
  }
  same('runs.list: by one of several tags', ids(await runs.list({ tag: ['none', `${tag}`] })).length, every.length);
  same('runs.list: by another tag', ids(await runs.list({ tag: `${tag}-none` })), []);

  const { schedule } = await runs.retrieve(scheduledRun);
  check('runs.retrieve: its schedule', schedule?.id?.startsWith('sched_'), JSON.stringify(schedule));
  same('runs.list: by schedule', ids(await runs.list({ schedule: schedule.id })), [scheduledRun]);

  const listed = (env) => as(baseURL, token, () => runs.list(project, { env, tag }));
  same('runs.list: with the token', ids(await part('runs.list: with the token', () => listed('prod'))).length, every.length);
  same('runs.list: with the token, elsewhere', ids(await listed('dev')), []);
}

/** Forwards, back again, and over all of them: the same runs, each once, newest first. */
async function pages(tag, made) {
  const newest = [...made].reverse();
  const first = await part('pages: the first', () => runs.list({ tag, limit: 3 }));
  check('pages: the first has none before', first.hasNextPage() && !first.hasPreviousPage(), JSON.stringify(first.pagination));
  const second = await first.getNextPage();
  const third = await second.getNextPage();
  same('pages: forwards', [first, second, third].map(ids), [newest.slice(0, 3), newest.slice(3, 6), newest.slice(6)]);
  check('pages: the last has none after', !third.hasNextPage() && third.hasPreviousPage(), JSON.stringify(third.pagination));
  const back = await third.getPreviousPage();
  same('pages: back', ids(back), ids(second));
  const start = await back.getPreviousPage();
  same('pages: back to the first', ids(start), ids(first));
  check('pages: back at the first, none before', !start.hasPreviousPage() && start.hasNextPage(), JSON.stringify(start.pagination));
  same('pages: all of them', (await all(runs.list({ tag, limit: 2 }))).map((run) => run.id), newest);
  same('pages: after', ids(await runs.list({ tag, limit: 3, after: newest[1] })), newest.slice(2, 5));
  same('pages: before', ids(await runs.list({ tag, limit: 3, before: newest[4] })), newest.slice(1, 4));
  same('pages: after the last', ids(await runs.list({ tag, after: newest.at(-1) })), []);
}
