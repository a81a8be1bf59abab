// Rescue of stuck posts and idle polls on one Postgres, in one run: psn's lease as the watchdog's own role under row-level security, the
// raw statement that it is made of, pg-boss, graphile-worker, and the loop of a naive wizard.
//
//   ROWS   posts or jobs in each table (1000000); a tenth of them is stuck
//   BATCH  rows of one statement (1000)
//   NAIVE  rows that the naive loop is measured on (all that are stuck)
//   GROWTH table sizes for the growth curve, comma-separated (10000,100000,1000000); writes growth.json
//   PGHOST, PGPORT, PGUSER: a superuser's connection to a Postgres of which the databases bench_* may be dropped
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import pg from "pg";

const require = createRequire(import.meta.url);
const here = new URL(".", import.meta.url);
const ROWS = Number(process.env.ROWS ?? 1_000_000);
const BATCH = Number(process.env.BATCH ?? 1000);
const STUCK = ROWS / 10;
// Rows that the naive loop is measured on; its time is scaled up to all stuck ones, which it takes one by one.
const NAIVE = Math.min(STUCK, Number(process.env.NAIVE ?? STUCK));
const POLLS = 200;
const GROWTH = (process.env.GROWTH ?? "10000,100000,1000000").split(",").filter(Boolean).map(Number);
const say = (line) => process.stderr.write(`${line}\n`);

async function client(database) {
  const one = new pg.Client({ database, application_name: "psn-bench" });
  await one.connect();
  return one;
}

async function fresh(database) {
  const admin = await client("postgres");
  await admin.query(`DROP DATABASE IF EXISTS ${database} WITH (FORCE)`);
  await admin.query(`CREATE DATABASE ${database}`);
  await admin.end();
  return client(database);
}

async function timed(work) {
  const before = process.hrtime.bigint();
  const result = await work();
  return [Number(process.hrtime.bigint() - before) / 1e6, result];
}

/** Bytes of WAL while it works. */
async function wal(db, work) {
  const at = async () => (await db.query("SELECT pg_current_wal_insert_lsn() AS at")).rows[0].at;
  const before = await at();
  const [ms, result] = await timed(work);
  const mb = (await db.query("SELECT pg_wal_lsn_diff($1, $2) / 1e6 AS mb", [await at(), before])).rows[0].mb;
  return { ms, mb: Number(mb), result };
}

async function p50(times, work) {
  const all = [];
  for (let n = 0; n < times; n++) all.push((await timed(work))[0]);
  return all.sort((a, b) => a - b)[Math.floor(times / 2)];
}

/** A hub's database, as the migrations and the watchdog's manifest make it. */
async function hub(database) {
  const db = await fresh(database);
  const folder = new URL("../../migrations/", here);
  for (const file of readdirSync(folder).filter((f) => f.endsWith(".sql")).sort()) {
    await db.query(`BEGIN; ${readFileSync(new URL(file, folder), "utf8")}; COMMIT`);
  }
  const manifest = readFileSync(new URL("../../plugins/watchdog/plugin.toml", here), "utf8");
  await db.query("GRANT USAGE ON SCHEMA psn TO psn_plugin_watchdog");
  for (const [, name, grant] of manifest.matchAll(/^"([^"]+)" = \{(.*)\}$/gm)) {
    if (name.includes("(")) {
      await db.query(`GRANT EXECUTE ON FUNCTION ${name} TO psn_plugin_watchdog`);
      continue;
    }
    for (const [, right, columns] of grant.matchAll(/(select|insert|update) = \[([^\]]*)\]/g)) {
      await db.query(`GRANT ${right} (${columns}) ON ${name} TO psn_plugin_watchdog`);
    }
    if (grant.includes("delete = true")) await db.query(`GRANT DELETE ON ${name} TO psn_plugin_watchdog`);
  }
  await db.query("INSERT INTO users (email) VALUES ('a@example.org')");
  return db;
}

/** A tenth stuck, the rest half published and half in the future. */
async function posts(db, rows, stuck) {
  await db.query("TRUNCATE posts CASCADE");
  await db.query(
    `INSERT INTO posts (user_id, platform, content, status, scheduled_at, rescue_at, attempt)
     SELECT (SELECT id FROM users), 'nowhere', repeat('x', 200),
            CASE WHEN n <= $2 THEN 'publishing' WHEN n % 2 = 0 THEN 'published' ELSE 'scheduled' END,
            CASE WHEN n <= $2 THEN now() - interval '1 hour' ELSE now() + interval '30 days' END,
            CASE WHEN n <= $2 THEN now() - interval '30 minutes' - n * interval '1 millisecond'
                 WHEN n % 2 = 0 THEN NULL ELSE now() + interval '30 days' END,
            (n <= $2)::int
     FROM generate_series(1, $1::bigint) n`,
    [rows, stuck],
  );
  await db.query("VACUUM ANALYZE posts");
}

const due = () => "UPDATE posts SET rescue_at = now() - interval '1 minute' WHERE status = 'publishing'";

const RAW = `WITH due AS MATERIALIZED (
    SELECT id FROM posts WHERE rescue_at <= now() AND status IN ('scheduled', 'retrying', 'publishing')
    ORDER BY rescue_at LIMIT $1 FOR UPDATE SKIP LOCKED)
  UPDATE posts p SET rescue_at = now() + interval '300 seconds' FROM due WHERE p.id = due.id
  RETURNING p.id, p.attempt, p.run_id, p.side_effect_at IS NOT NULL AS has_begun`;

async function drain(statement) {
  let all = 0;
  for (;;) {
    const { rowCount } = await statement();
    all += rowCount;
    if (rowCount < BATCH) return all;
  }
}

const raw = (db, batch) => db.query({ name: "raw", text: RAW, values: [batch] });
const lease = (db, batch) => db.query({ name: "lease", text: "SELECT * FROM psn.lease($1, 300)", values: [batch] });

async function psn(report) {
  const db = await hub("bench_psn");
  const role = await client("bench_psn");
  await role.query("SET ROLE psn_plugin_watchdog");
  await posts(db, ROWS, STUCK);
  // Each in turn, three times, on a vacuumed table; the best of each counts.
  const best = {};
  for (let round = 0; round < 3; round++) {
    for (const [name, work] of [
      ["raw statement", () => drain(() => raw(db, BATCH))],
      ["psn.lease", () => drain(() => lease(role, BATCH))],
    ]) {
      await db.query(due());
      await db.query("VACUUM ANALYZE posts");
      await db.query("CHECKPOINT");
      const one = await wal(db, work);
      if (one.result !== STUCK) throw new Error(`${name} took ${one.result} of ${STUCK}`);
      if (!best[name] || one.ms < best[name].ms) best[name] = one;
    }
  }
  await db.query("VACUUM ANALYZE posts");
  const scans = async () => {
    await db.query("SELECT pg_stat_clear_snapshot()");
    return Number((await db.query("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'posts'")).rows[0].seq_scan);
  };
  const before = await scans();
  best["raw statement"].idle = await p50(POLLS, () => raw(db, BATCH));
  best["psn.lease"].idle = await p50(POLLS, () => lease(role, BATCH));
  best["psn.lease"].gauges = await p50(POLLS, () => role.query({ name: "gauges", text: "SELECT * FROM psn.gauges(10000)" }));
  await new Promise((resolve) => setTimeout(resolve, 1500));
  best["psn.lease"].scans = (await scans()) - before;
  Object.assign(report, best);

  // The naive loop: read all that look stuck, start each, then write each.
  await db.query(due());
  await db.query("VACUUM ANALYZE posts");
  const SEEN = "SELECT * FROM posts WHERE status IN ('scheduled', 'publishing') AND scheduled_at < now() - interval '15 minutes'";
  await db.query("CHECKPOINT");
  const naive = await wal(db, async () => {
    const { rows } = await db.query(SEEN);
    for (const row of rows.slice(0, NAIVE)) {
      await db.query({
        name: "naive",
        text: "UPDATE posts SET attempt = attempt + 1, rescue_at = now() + interval '300 seconds' WHERE id = $1",
        values: [row.id],
      });
    }
    return rows.length;
  });
  naive.ms *= STUCK / NAIVE;
  naive.mb *= STUCK / NAIVE;
  await db.query("UPDATE posts SET scheduled_at = now() + interval '1 day' WHERE status = 'publishing'");
  await db.query("VACUUM ANALYZE posts");
  naive.idle = await p50(5, () => db.query(SEEN));
  report["naive loop"] = naive;
  await role.end();
  await db.end();
}

const connection = (database) => ({
  database,
  host: process.env.PGHOST,
  port: Number(process.env.PGPORT),
  user: process.env.PGUSER,
  supervise: false,
  schedule: false,
});

/** A tenth active for longer than it may be, the rest half completed and half in the future; `expiry` is the column of how long, and its value. */
async function jobs(db, [column, value]) {
  await db.query(
    `INSERT INTO pgboss.job (name, data, state, started_on, completed_on, start_after, ${column}, retry_limit, keep_until)
     SELECT 'posts', '{"n":1}', CASE WHEN n <= $2 THEN 'active' WHEN n % 2 = 0 THEN 'completed' ELSE 'created' END::pgboss.job_state,
            CASE WHEN n <= $2 THEN now() - interval '1 hour' END, CASE WHEN n > $2 AND n % 2 = 0 THEN now() END,
            CASE WHEN n <= $2 OR n % 2 = 0 THEN now() - interval '2 hours' ELSE now() + interval '30 days' END, ${value}, 3, now() + interval '60 days'
     FROM generate_series(1, $1::bigint) n`,
    [ROWS, STUCK],
  );
  await db.query("VACUUM ANALYZE");
  await db.query("CHECKPOINT");
}

async function rescued(db, work) {
  const one = await wal(db, work);
  const left = Number((await db.query("SELECT count(*) FROM pgboss.job WHERE state = 'active'")).rows[0].count);
  if (left !== 0) throw new Error(`pg-boss left ${left} active`);
  await db.query("VACUUM ANALYZE");
  return one;
}

/** The release of today: its supervisor rescues in batches of 1,000 too. */
async function boss(report) {
  const db = await fresh("bench_boss");
  const { PgBoss } = await import("pg-boss");
  const boss = new PgBoss(connection("bench_boss"));
  boss.on("error", (error) => say(`pg-boss: ${error.message}`));
  await boss.start();
  await boss.createQueue("posts");
  await jobs(db, ["expire_seconds", "900"]);
  const one = await rescued(db, () => boss.supervise());
  // Its parts run once in an interval, whoever asks: as long after the last as they would be.
  const times = [];
  for (let n = 0; n < 21; n++) {
    await db.query("UPDATE pgboss.queue SET monitor_on = NULL, monitor_claim_on = NULL, maintain_on = NULL");
    times.push((await timed(() => boss.supervise()))[0]);
  }
  one.idle = times.sort((a, b) => a - b)[10];
  report["pg-boss 12 supervise()"] = one;
  await boss.stop({ graceful: false });
  await db.end();
}

/** The last one whose rescue was one statement for all. */
async function boss10(report) {
  const db = await fresh("bench_boss_10");
  const PgBoss = require("pg-boss-10");
  const boss = new PgBoss(connection("bench_boss_10"));
  boss.on("error", (error) => say(`pg-boss 10: ${error.message}`));
  await boss.start();
  await boss.createQueue("posts");
  await jobs(db, ["expire_in", "interval '15 minutes'"]);
  const one = await rescued(db, () => boss.maintain());
  one.idle = await p50(20, () => boss.maintain());
  report["pg-boss 10 maintain()"] = one;
  await boss.stop({ graceful: false });
  await db.end();
}

async function graphile(report) {
  const db = await fresh("bench_graphile");
  const { makeWorkerUtils } = require("graphile-worker");
  const user = process.env.PGUSER ?? "postgres";
  const utils = await makeWorkerUtils({ pgPool: new pg.Pool({ database: "bench_graphile", user }), noHandleSignals: true });
  await utils.migrate();
  await utils.addJob("posts", { n: 1 });
  await db.query(
    `INSERT INTO graphile_worker._private_jobs (task_id, payload, run_at, locked_at, locked_by)
     SELECT (SELECT id FROM graphile_worker._private_tasks WHERE identifier = 'posts'), '{"n":1}',
            CASE WHEN n <= $2 THEN now() - interval '5 hours' ELSE now() + interval '30 days' END,
            CASE WHEN n <= $2 THEN now() - interval '5 hours' END, CASE WHEN n <= $2 THEN 'dead' END
     FROM generate_series(1, $1::bigint) n`,
    [ROWS, STUCK],
  );
  await db.query("VACUUM ANALYZE");
  await db.query("CHECKPOINT");
  const { resetLockedAt } = require("graphile-worker/dist/sql/resetLockedAt.js");
  const shared = {
    escapedWorkerSchema: "graphile_worker",
    workerSchema: "graphile_worker",
    resolvedPreset: { worker: { preparedStatements: true, useNodeTime: false } },
  };
  const withPgClient = Object.assign((work) => work(db), { withRetries: (work) => work(db) });
  const reset = () => resetLockedAt(shared, withPgClient);
  const one = await wal(db, reset);
  const left = Number((await db.query("SELECT count(*) FROM graphile_worker._private_jobs WHERE locked_at IS NOT NULL")).rows[0].count);
  if (left !== 0) throw new Error(`graphile-worker left ${left} locked`);
  await db.query("VACUUM ANALYZE");
  one.idle = await p50(20, reset);
  report["graphile-worker resetLockedAt"] = one;
  await utils.release();
  await db.end();
}

async function growth() {
  const db = await hub("bench_growth");
  const role = await client("bench_growth");
  await role.query("SET ROLE psn_plugin_watchdog");
  const curve = [];
  for (const rows of GROWTH) {
    const stuck = Math.min(10_000, rows / 10);
    await posts(db, rows, stuck);
    await lease(role, 1);
    const [ms, taken] = await timed(() => drain(() => lease(role, BATCH)));
    const [naive] = await timed(() => db.query("SELECT id FROM posts WHERE status IN ('scheduled', 'publishing') AND scheduled_at < now() - interval '15 minutes'"));
    await db.query("VACUUM ANALYZE posts");
    const idle = await p50(POLLS, () => lease(role, BATCH));
    curve.push({ rows, idle_ms: idle, rescue_us_per_post: (ms / taken) * 1000, naive_poll_ms: naive });
    say(`growth ${JSON.stringify(curve.at(-1))}`);
  }
  await role.end();
  await db.end();
  return curve;
}

const report = {};
for (const one of [psn, boss, boss10, graphile]) {
  await one(report);
  say(`${one.name} done`);
}
const base = report["raw statement"];
const table = Object.entries(report).map(([name, { ms, mb, idle }]) =>
  `| ${name} | ${(ms / base.ms).toFixed(2)} | ${(mb / base.mb).toFixed(2)} | ${(idle / base.idle).toFixed(2)} | ${ms.toFixed(0)} ms, ${mb.toFixed(0)} MB, ${idle.toFixed(2)} ms |`);
say(`${ROWS} rows, ${STUCK} stuck, batches of ${BATCH}. 1 = the raw statement.`);
say("| | rescue | WAL | idle poll p50 | as measured |\n|---|---|---|---|---|");
for (const line of table) say(line);
say(`gauges p50 ${report["psn.lease"].gauges.toFixed(2)} ms; sequential scans of posts by idle polls: ${report["psn.lease"].scans}`);
const curve = GROWTH.length ? await growth() : [];
writeFileSync(new URL("growth.json", here), `${JSON.stringify({ rows: ROWS, report, curve }, null, 2)}\n`);
