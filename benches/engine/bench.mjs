// Throughput and latency of three job runners over one Postgres, in one process and one run: the local hub's engine (through its
// HTTP API, each run a fresh instance of a component), graphile-worker and pg-boss (through their own libraries, each job an empty
// function in this process). The first two work at the same
// concurrency, pg-boss on a whole batch at once. Compare ratios, not times.
//
//   TRIGGER_API_URL, TRIGGER_SECRET_KEY   the local hub's Trigger.dev service
//   PGHOST, PGPORT, PGUSER, PGPASSWORD    a superuser of the cluster that keeps that service's state
//   CONCURRENCY                           what `psn local status` says of that engine: run_slots
//   JOBS [1000], SAMPLES [100], ROUNDS [3]
import process from 'node:process';
import { randomUUID } from 'node:crypto';
import pg from 'pg';
import PgBoss from 'pg-boss';
import { Logger, makeWorkerUtils, run } from 'graphile-worker';

const JOBS = Number(process.env.JOBS ?? 1000);
const SAMPLES = Number(process.env.SAMPLES ?? 100);
const ROUNDS = Number(process.env.ROUNDS ?? 3);
/** As many at once as the local hub's engine executes here. */
const CONCURRENCY = Number(process.env.CONCURRENCY);
/** Jobs handed over in one call. */
const BATCH = 500;
/** Between two single jobs, so that each finds an idle runner. */
const APART_MS = 50;
/** Between two looks at what is left: often beside the seconds that are measured, rare beside the API's rate limit. */
const POLL_MS = 50;
/** Seconds after which a runner counts as hanging. */
const PATIENCE = 300;
const SCRATCH = 'psn_bench_engine';

/** Counts starts; `started(id)` resolves once that job's function is entered. */
class Starts {
  count = 0;
  waiting = new Map();
  early = new Set();
  enter(id) {
    this.count += 1;
    const resolve = this.waiting.get(id);
    if (resolve) resolve(performance.now());
    else this.early.add(id);
  }
  started(id) {
    if (this.early.delete(id)) return Promise.resolve(performance.now());
    return new Promise((resolve) => this.waiting.set(id, resolve));
  }
  async reaches(total) {
    const end = performance.now() + PATIENCE * 1000;
    while (this.count < total) {
      if (performance.now() > end) throw new Error(`${this.count} of ${total} jobs after ${PATIENCE} s`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }
}

/** `add(ids)` hands jobs over in one call. */
async function measure(starts, add) {
  const latencies = [];
  for (let i = 0; i < SAMPLES; i += 1) {
    const id = randomUUID();
    const from = performance.now();
    const started = starts.started(id);
    await add([id]);
    latencies.push((await started) - from);
    await new Promise((resolve) => setTimeout(resolve, APART_MS));
  }
  const before = starts.count;
  const from = performance.now();
  for (let done = 0; done < JOBS; done += BATCH) {
    await add(Array.from({ length: Math.min(BATCH, JOBS - done) }, () => randomUUID()));
  }
  await starts.reaches(before + JOBS);
  return { perSecond: JOBS / ((performance.now() - from) / 1000), latencies };
}

/** Its documented function for many jobs at once. */
const ADD_JOBS =
  'SELECT graphile_worker.add_jobs(ARRAY(SELECT json_populate_recordset(NULL::graphile_worker.job_spec, $1::json)))';

async function graphile(connectionString) {
  const starts = new Starts();
  const logger = new Logger(() => () => {});
  const runner = await run({
    connectionString,
    concurrency: CONCURRENCY,
    noHandleSignals: true,
    logger,
    taskList: { noop: async ({ id }) => starts.enter(id) },
  });
  const utils = await makeWorkerUtils({ connectionString, logger });
  try {
    return await measure(starts, (ids) =>
      utils.withPgClient((client) =>
        client.query(ADD_JOBS, [JSON.stringify(ids.map((id) => ({ identifier: 'noop', payload: { id } })))]),
      ));
  } finally {
    await utils.release();
    await runner.stop();
  }
}

async function boss(connectionString) {
  const starts = new Starts();
  const boss = new PgBoss({ connectionString });
  boss.on('error', (error) => console.error(`pg-boss: ${error.message}`));
  await boss.start();
  try {
    await boss.createQueue('noop');
    // Its shortest poll; it has no way to be woken, and fetches nothing in between: with less than all of a batch at once it would
    // only be waiting.
    const options = { pollingIntervalSeconds: 0.5, batchSize: BATCH };
    await boss.work('noop', options, async (jobs) => jobs.forEach(({ data }) => starts.enter(data.id)));
    return await measure(starts, (ids) => boss.insert(ids.map((id) => ({ name: 'noop', data: { id } }))));
  } finally {
    await boss.stop({ graceful: false });
  }
}

/** Through the HTTP API. When a run started, the engine's own database says, by the clock of this machine. */
async function psn() {
  const base = process.env.TRIGGER_API_URL;
  const headers = {
    authorization: `Bearer ${process.env.TRIGGER_SECRET_KEY}`,
    'x-trigger-api-version': '2025-07-16',
  };
  const call = async (path, body, type = 'application/json') => {
    const init = body === undefined ? { headers } : { method: 'POST', body, headers: { ...headers, 'content-type': type } };
    const reply = await fetch(new URL(path, base), init);
    if (!reply.ok) throw new Error(`${path}: ${reply.status} ${await reply.text()}`);
    return reply.json();
  };
  const tag = randomUUID();
  const single = `${tag}-single`;
  const open = async (name) => {
    const status = 'QUEUED,DEQUEUED,EXECUTING';
    return (await call(`/api/v1/runs?filter[tag]=${name}&filter[status]=${status}&page[size]=1`)).data.length;
  };
  const drained = async (name) => {
    const end = performance.now() + PATIENCE * 1000;
    while ((await open(name)) > 0) {
      if (performance.now() > end) throw new Error(`the local hub's runs have not ended after ${PATIENCE} s`);
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  };
  const asked = new Map();
  for (let i = 0; i < SAMPLES; i += 1) {
    const options = { payloadType: 'application/json', tags: [single] };
    const at = Date.now();
    const { id } = await call('/api/v1/tasks/noop-task/trigger', JSON.stringify({ payload: {}, options }));
    asked.set(id, at);
    await new Promise((resolve) => setTimeout(resolve, APART_MS));
  }
  await drained(single);
  const { data } = await call(`/api/v1/runs?filter[tag]=${single}&page[size]=100`);
  const latencies = data.map((run) => new Date(run.startedAt) - asked.get(run.id));

  const from = performance.now();
  for (let done = 0; done < JOBS; done += BATCH) {
    const count = Math.min(BATCH, JOBS - done);
    const { id } = await call('/api/v3/batches', JSON.stringify({ runCount: count }));
    const item = (index) =>
      JSON.stringify({ index, task: 'noop-task', payload: {}, options: { payloadType: 'application/json', tags: [tag] } });
    await call(`/api/v3/batches/${id}/items`, Array.from({ length: count }, (_, i) => item(i)).join('\n'), 'application/x-ndjson');
  }
  await drained(tag);
  const seconds = (performance.now() - from) / 1000;
  const bad = 'FAILED,CRASHED,SYSTEM_FAILURE,TIMED_OUT,EXPIRED,CANCELED';
  const failed = await call(`/api/v1/runs?filter[tag]=${tag},${single}&filter[status]=${bad}&page[size]=1`);
  if (failed.data.length > 0) throw new Error(`a run ended as ${failed.data[0].status}: what was measured is not what was asked for`);
  return { perSecond: JOBS / seconds, latencies };
}

const admin = new pg.Client({ database: 'postgres' });
await admin.connect();
await admin.query(`DROP DATABASE IF EXISTS ${SCRATCH} WITH (FORCE)`);
await admin.query(`CREATE DATABASE ${SCRATCH}`);
const user = encodeURIComponent(process.env.PGUSER);
const password = encodeURIComponent(process.env.PGPASSWORD);
const host = encodeURIComponent(process.env.PGHOST);
const scratch = `postgresql://${user}:${password}@${host}:${process.env.PGPORT}/${SCRATCH}`;

const runners = { 'local hub': psn, 'graphile-worker': () => graphile(scratch), 'pg-boss': () => boss(scratch) };
const results = Object.fromEntries(Object.keys(runners).map((name) => [name, { rates: [], latencies: [] }]));
try {
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [name, runner] of Object.entries(runners)) {
      const { perSecond, latencies } = await runner();
      results[name].rates.push(perSecond);
      results[name].latencies.push(...latencies);
    }
  }
} finally {
  await admin.query(`DROP DATABASE IF EXISTS ${SCRATCH} WITH (FORCE)`);
  await admin.end();
}

const at = (values, q) => values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * q))];
console.log(`${JOBS} jobs in batches of ${BATCH}, ${CONCURRENCY} at once; ${SAMPLES} single jobs for latency; ${ROUNDS} rounds in turn`);
for (const [name, { rates, latencies }] of Object.entries(results)) {
  const rate = `${Math.min(...rates).toFixed(0)} / ${at(rates, 0.5).toFixed(0)} / ${Math.max(...rates).toFixed(0)}`;
  const wait = `${at(latencies, 0.5).toFixed(1)} / ${at(latencies, 0.99).toFixed(1)}`;
  console.log(`${name.padEnd(16)} jobs/s min / median / max ${rate.padEnd(22)} to start, ms p50 / p99 ${wait}`);
}
