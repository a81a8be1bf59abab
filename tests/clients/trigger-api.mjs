// The real `@trigger.dev/sdk` against a Trigger.dev API, beyond one run: delays, batches, lists with each filter, pages, idempotency
// across states, schedules, environment variables, and the rate limit.
//
//   TRIGGER_API_URL       the API's origin
//   TRIGGER_SECRET_KEY    the environment's secret key
//   TRIGGER_ACCESS_TOKEN  the account's token
//   TRIGGER_PROJECT_REF   proj_…
//   PSN_TASK_ID           a deployed task that any object can be given to
import { randomUUID } from 'node:crypto';
import { batch, configure, envvars, idempotencyKeys, runs, schedules, tasks } from '@trigger.dev/sdk';
import { check, main, need, part, same, secret, until } from './lib.mjs';

/** Seconds. A component that was never run here is compiled first. */
const RUN_LIMIT = 120;
/** Requests that empty the vendor's bucket of 750 whatever was taken before. */
const TOO_MANY = 800;

await main(async () => {
  const baseURL = need('TRIGGER_API_URL', 'the origin of a Trigger.dev API');
  const accessToken = secret(need('TRIGGER_SECRET_KEY', "the environment's secret key"));
  const token = secret(need('TRIGGER_ACCESS_TOKEN', "the account's token"));
  const project = need('TRIGGER_PROJECT_REF', "the project's reference");
  const task = need('PSN_TASK_ID', 'the id of a deployed task');
  configure({ baseURL, accessToken });
  const mark = `api-${randomUUID()}`;

  await delayed(task, mark);
  await lists(task, mark);
  await idempotency(task, mark);
  await plans(task, mark);
  await variables(project, mark);
  await rateLimit(baseURL, token, project);
});

function ids(page) {
  return page.data.map((run) => run.id);
}

async function status(id) {
  return (await runs.retrieve(id)).status;
}

/** The status with which a call is refused. */
async function refusal(promise) {
  return promise.then(
    () => 'nothing',
    (error) => error.status,
  );
}

/** Put off, moved, cancelled, replayed. */
async function delayed(task, mark) {
  const { id } = await part('delay', () => tasks.trigger(task, {}, { delay: '2h', ttl: '1h', tags: [mark, `${mark}-late`] }));
  const run = await runs.retrieve(id);
  same('delay: status', run.status, 'DELAYED');
  check('delay: two hours', Math.abs(run.delayedUntil - Date.now() - 7_200_000) < 60_000, `${run.delayedUntil}`);
  const moved = await part('reschedule', () => runs.reschedule(id, { delay: new Date(Date.now() + 86_400_000) }));
  check('reschedule: a day', moved.delayedUntil - run.delayedUntil > 70_000_000, `${moved.delayedUntil}`);
  same('cancel', (await part('cancel', () => runs.cancel(id))).id, id);
  same('cancel: status', await status(id), 'CANCELED');
  same('cancel: again is no error', (await runs.cancel(id)).id, id);
  same('reschedule: a run that is not delayed', await refusal(runs.reschedule(id, { delay: '1h' })), 400);
  const replayed = await part('replay', () => runs.replay(id));
  check('replay: a new run', replayed.id.startsWith('run_') && replayed.id !== id, replayed.id);
  await ends(replayed.id);
  same('replay: tags come along', (await runs.retrieve(replayed.id)).tags.sort(), [mark, `${mark}-late`]);
}

async function ends(id) {
  const name = `run ${id} ends`;
  return until(name, RUN_LIMIT, async () => {
    const seen = await status(id);
    return ['COMPLETED', 'FAILED', 'CRASHED', 'TIMED_OUT', 'CANCELED'].includes(seen) ? { done: seen } : { seen };
  });
}

/** A batch, and every way to find its runs. */
async function lists(task, mark) {
  const items = [1, 2, 3, 4, 5].map((n) => ({ payload: { n }, options: { delay: '3h', tags: [`${mark}-batch`, `n:${n}`] } }));
  const handle = await part('batchTrigger', () => tasks.batchTrigger(task, items));
  same('batchTrigger: count', handle.runCount, 5);
  const made = await part('batch.retrieve', () => batch.retrieve(handle.batchId));
  same('batch.retrieve: its runs', made.runs.length, 5);

  const tag = `${mark}-batch`;
  const all = ids(await part('runs.list', () => runs.list({ tag, limit: 10 })));
  same('runs.list: the batch', [...all].sort(), [...made.runs].sort());
  for (const [name, filter, expected] of [
    ['status', { status: 'DELAYED', tag }, 5],
    ['several statuses', { status: ['DELAYED', 'COMPLETED'], tag }, 5],
    ['another status', { status: 'EXECUTING', tag }, 0],
    ['task', { taskIdentifier: task, tag }, 5],
    ['another task', { taskIdentifier: `${task}-x`, tag }, 0],
    ['several tags', { tag: [tag, `${mark}-none`] }, 5],
    ['is a test', { isTest: true, tag }, 0],
    ['is no test', { isTest: false, tag }, 5],
    ['from', { from: new Date(Date.now() - 3_600_000), tag }, 5],
    ['to', { to: new Date(Date.now() - 3_600_000), tag }, 0],
    ['period', { period: '1h', tag }, 5],
    ['batch', { batch: handle.batchId }, 5],
  ]) {
    same(`runs.list: by ${name}`, ids(await part(`runs.list: by ${name}`, () => runs.list(filter))).length, expected);
  }

  // Forwards and back again: the same pages.
  const first = await runs.list({ tag, limit: 2 });
  const second = await first.getNextPage();
  const third = await second.getNextPage();
  same('pages: forwards', [first, second, third].flatMap(ids), all);
  check('pages: the last has no next', !third.hasNextPage(), 'it has one');
  same('pages: back', ids(await third.getPreviousPage()), ids(second));
  await Promise.all(all.map((id) => runs.cancel(id)));
}

/** COMPLETED and CANCELED keep a key; reset gives it back. */
async function idempotency(task, mark) {
  const key = (name) => idempotencyKeys.create(`${mark}-${name}`, { scope: 'global' });
  const trigger = async (name, options = {}) => (await tasks.trigger(task, {}, { idempotencyKey: await key(name), ...options })).id;

  const done = await trigger('done');
  same('idempotency: the run completes', await ends(done), 'COMPLETED');
  same('idempotency: completed keeps the key', await trigger('done'), done);

  const cancelled = await trigger('cancelled', { delay: '1h' });
  same('idempotency: delayed keeps the key', await trigger('cancelled', { delay: '1h' }), cancelled);
  await runs.cancel(cancelled);
  same('idempotency: cancelled keeps the key', await trigger('cancelled'), cancelled);
  await part('idempotencyKeys.reset', async () => idempotencyKeys.reset(task, await key('cancelled')));
  const fresh = await trigger('cancelled', { delay: '1h' });
  check('idempotency: reset frees the key', fresh !== cancelled, 'it is the same run');
  await runs.cancel(fresh);

  const expired = await trigger('short', { delay: '1h', idempotencyKeyTTL: '1s' });
  await new Promise((resolve) => setTimeout(resolve, 1_200));
  const after = await trigger('short', { delay: '1h' });
  check('idempotency: a key lives as long as was said', after !== expired, 'it is the same run');
  await Promise.all([runs.cancel(expired), runs.cancel(after)]);
}

async function plans(task, mark) {
  const plan = { task, cron: '30 9 * * 1-5', timezone: 'Europe/Berlin', deduplicationKey: mark, externalId: `${mark}-x` };
  const refused = await schedules.create(plan).then(() => null, (error) => error);
  if (refused) {
    // A task that declares its own schedule takes no other at some servers; then there is nothing more to see here.
    check('schedules.create: a refusal has its reason', refused.status >= 400 && refused.message.length > 0, String(refused));
    return;
  }
  const made = await part('schedules.create', () => schedules.create(plan));
  const again = await part('schedules.create: again', () => schedules.create({ ...plan, cron: '0 10 * * *' }));
  same('schedules.create: one for each key', again.id, made.id);
  same('schedules.create: the later word counts', again.generator.expression, '0 10 * * *');
  same('schedules.retrieve', (await schedules.retrieve(made.id)).externalId, `${mark}-x`);
  same('schedules.deactivate', (await schedules.deactivate(made.id)).active, false);
  same('schedules.activate', (await schedules.activate(made.id)).active, true);
  const changed = await schedules.update(made.id, { task, cron: '0 11 * * *', timezone: 'UTC', deduplicationKey: mark });
  same('schedules.update', [changed.generator.expression, changed.timezone], ['0 11 * * *', 'UTC']);
  await part('schedules.del', () => schedules.del(made.id));
  same('schedules.del: gone', await refusal(schedules.retrieve(made.id)), 404);
  check('schedules.timezones', (await schedules.timezones()).timezones.includes('Europe/Berlin'), 'no Berlin');
}

async function variables(project, mark) {
  const name = `PSN_TEST_${mark.replaceAll('-', '_').toUpperCase()}`;
  await part('envvars.upload', () =>
    envvars.upload(project, 'prod', { variables: { [name]: 'plain' }, override: true }),
  );
  same('envvars.retrieve', (await envvars.retrieve(project, 'prod', name)).value, 'plain');
  await part('envvars.create: a secret', () =>
    envvars.create(project, 'prod', { name: `${name}_S`, value: 'hush-hush', isSecret: true }),
  );
  const listed = await part('envvars.list', () => envvars.list(project, 'prod'));
  const hidden = listed.find((variable) => variable.name === `${name}_S`);
  check('envvars.list: secrets are not shown', hidden && hidden.value !== 'hush-hush', JSON.stringify(hidden));
  for (const each of [name, `${name}_S`]) await part('envvars.del', () => envvars.del(project, 'prod', each));
  same('envvars.del: gone', await refusal(envvars.retrieve(project, 'prod', name)), 404);
}

/** Too many calls are refused in the vendor's words, and the SDK gets through by waiting. The development key has a bucket of its own. */
async function rateLimit(baseURL, token, project) {
  const environment = await fetch(`${baseURL}/api/v1/projects/${project}/dev`, { headers: { authorization: `Bearer ${token}` } });
  const key = secret((await environment.json()).apiKey);
  const ask = () => fetch(`${baseURL}/api/v1/runs/none`, { headers: { authorization: `Bearer ${key}` } });
  let refused;
  for (let asked = 0; asked < TOO_MANY && !refused; asked += 40) {
    const replies = await Promise.all(Array.from({ length: 40 }, ask));
    refused = replies.find((reply) => reply.status === 429);
    await Promise.all(replies.filter((reply) => reply !== refused).map((reply) => reply.text()));
  }
  check('rate limit: refused', refused, `${TOO_MANY} calls went through`);
  same('rate limit: kind', refused.headers.get('content-type'), 'application/problem+json');
  const body = await refused.json();
  same('rate limit: body', [body.title, body.status, body.limit], ['Rate Limit Exceeded', 429, 750]);
  check('rate limit: reset', Number(refused.headers.get('x-ratelimit-reset')) > Date.now() - 11_000, 'no time');
  const page = await part('rate limit: the SDK waits', () => runs.list({ limit: 5 }, { clientConfig: { baseURL, accessToken: key } }));
  check('rate limit: and gets through', Array.isArray(page.data), 'no list');
}
