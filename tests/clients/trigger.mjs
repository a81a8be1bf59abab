// The real `@trigger.dev/sdk` against a Trigger.dev API: triggers a task, follows its run to the end, finds it in the list, and
// sees the schedule.
//
//   TRIGGER_API_URL      the API's origin, for example http://127.0.0.1:4801
//   TRIGGER_SECRET_KEY   the environment's secret key
//   PSN_TASK_ID          the task to trigger
//   PSN_TASK_PAYLOAD     what it is given, as JSON [default: {}]
//   PSN_SCHEDULED_TASK   a task that has a schedule [default: watchdog]
import { randomUUID } from 'node:crypto';
import process from 'node:process';
import { configure, idempotencyKeys, runs, schedules, tasks } from '@trigger.dev/sdk';
import { check, main, need, part, same, secret, until } from './lib.mjs';

/** Seconds. A component that was never run here is compiled first. */
const RUN_LIMIT = 120;
/** States in which a run goes on. The SDK's `isCompleted` leaves out EXPIRED and TIMED_OUT. */
const OPEN = ['PENDING_VERSION', 'DELAYED', 'QUEUED', 'DEQUEUED', 'EXECUTING', 'WAITING'];
/** More runs than a test hub has. */
const MOST_RUNS = 1000;

await main(async () => {
  const baseURL = need('TRIGGER_API_URL', "the origin of a Trigger.dev API, such as the local hub's");
  const accessToken = secret(need('TRIGGER_SECRET_KEY', "the environment's secret key"));
  const task = need('PSN_TASK_ID', 'the id of a deployed task');
  const scheduled = process.env.PSN_SCHEDULED_TASK ?? 'watchdog';
  const payload = JSON.parse(process.env.PSN_TASK_PAYLOAD ?? '{}');
  configure({ baseURL, accessToken });

  const tag = `psn-client-${randomUUID()}`;
  const idempotencyKey = await idempotencyKeys.create(tag, { scope: 'global' });
  const trigger = () => tasks.trigger(task, payload, { idempotencyKey, tags: [tag] });
  const { id } = await part('tasks.trigger', trigger);
  check('tasks.trigger', id?.startsWith('run_'), `${JSON.stringify(id)} is no run's id`);
  same('tasks.trigger: the same key is the same run', (await part('tasks.trigger again', trigger)).id, id);

  await completes(id, task, payload);
  same('tasks.trigger: the same key after the run', (await part('tasks.trigger after the run', trigger)).id, id);

  const recent = { period: '1h' };
  same('runs.list: by tag', await part('runs.list', () => listed({ tag, ...recent })), [id]);
  for (const [name, filter, there] of [
    ['by task and status', { taskIdentifier: task, status: 'COMPLETED' }, true],
    ['not under another status', { taskIdentifier: task, status: 'FAILED' }, false],
    ['not under another task', { taskIdentifier: `${task}-2`, tag }, false],
  ]) {
    const found = await part(`runs.list: ${name}`, () => listed({ ...filter, ...recent }));
    check(`runs.list: ${name}`, found.includes(id) === there, there ? 'the run is not in the list' : 'the run is in the list');
  }

  const plans = await part('schedules.list', () => all(schedules.list({ perPage: 20 })));
  const plan = plans.find((schedule) => schedule.task === scheduled);
  check('schedules.list', plan, `no schedule of ${scheduled} among ${plans.length}`);
  check('schedules.list: active, with a next run', plan.active && plan.nextRun > new Date(), `active ${plan.active}, next run ${plan.nextRun}`);
  same('schedules.list: kind', plan.generator.type, 'CRON');

  configure({ baseURL, accessToken: 'tr_prod_not_a_key' });
  const refused = await runs.retrieve(id, { clientConfig: { accessToken: 'tr_prod_not_a_key' } }).then(
    () => 'nothing',
    (error) => error.status,
  );
  same('a wrong key is refused', refused, 401);
});

/** The run ends well, and says what it was given and what came out. */
async function completes(id, task, payload) {
  const name = 'runs.retrieve: the run completes';
  const run = await part(name, () =>
    until(name, RUN_LIMIT, async () => {
      const run = await runs.retrieve(id);
      return OPEN.includes(run.status) ? { seen: run.status } : { done: run };
    }),
  );
  check(name, run.status === 'COMPLETED', `it ended as ${run.status}: ${JSON.stringify(run.error)}`);
  same('runs.retrieve: task and payload', [run.taskIdentifier, run.payload], [task, payload]);
  check('runs.retrieve: output', run.output !== null && typeof run.output === 'object', `it is ${JSON.stringify(run.output)}`);
  check('runs.retrieve: it ended after it began', run.finishedAt >= run.startedAt, `${run.startedAt} … ${run.finishedAt}`);
}

/** Over all pages. */
async function listed(filter) {
  return (await all(runs.list({ limit: 10, ...filter }))).map((run) => run.id);
}

async function all(pages) {
  const items = [];
  for await (const item of pages) {
    items.push(item);
    if (items.length > MOST_RUNS) throw new Error(`more than ${MOST_RUNS} items: the pages do not end`);
  }
  return items;
}
