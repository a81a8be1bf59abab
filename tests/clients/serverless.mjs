// The real `@neondatabase/serverless` driver against the SQL-over-HTTP service of a Neon API.
//
//   SQL_URL       where it is, for example http://127.0.0.1:4701/sql
//   DATABASE_URL  a connection string of a database there; its role may create tables
import { neon, neonConfig, NeonDbError } from '@neondatabase/serverless';
import { check, main, need, part, same, secret } from './lib.mjs';

/** The error of work that must fail. */
async function refused(name, work) {
  try {
    await work();
  } catch (error) {
    return error;
  }
  check(name, false, 'it was accepted');
}

await main(async () => {
  const url = secret(need('DATABASE_URL', 'a connection string'));
  const endpoint = need('SQL_URL', 'the address of SQL over HTTP');
  secret(decodeURIComponent(new URL(url).password));
  neonConfig.fetchEndpoint = () => endpoint;
  const sql = neon(url);

  await part('types', async () => {
    const [row] = await sql`select ${1}::int as i, ${true}::bool as b, ${'ä\'"\\'}::text as t, ${null}::text as n,
      ${['a', 'b"c', null]}::text[] as list, ${{ deep: [1] }}::jsonb as j, ${9007199254740993n.toString()}::int8 as big,
      ${new Date(0)}::timestamptz as at, ${Buffer.from('hi')}::bytea as bytes, 1.5::float8 as f`;
    const { at, bytes, ...rest } = row;
    same('types', rest, { i: 1, b: true, t: 'ä\'"\\', n: null, list: ['a', 'b"c', null], j: { deep: [1] }, big: '9007199254740993', f: 1.5 });
    same('types: a date and bytes', [at.getTime(), Buffer.from(bytes).toString()], [0, 'hi']);
  });

  const table = 'serverless_driver_test';
  await part('definition', () => sql.query(`create table ${table} (id int primary key, name text)`));
  try {
    const full = neon(url, { fullResults: true, arrayMode: true });
    const inserted = await part('full results', () => full.query(`insert into ${table} values ($1, $2), (2, null) returning *`, [1, 'one']));
    same('full results', [inserted.command, inserted.rowCount, inserted.rows], ['INSERT', 2, [[1, 'one'], [2, null]]]);
    same('full results: fields', inserted.fields.map((f) => [f.name, f.dataTypeID]), [['id', 23], ['name', 25]]);

    const duplicate = await refused('an error', () => sql.query(`insert into ${table} values (1)`));
    check('an error', duplicate instanceof NeonDbError, String(duplicate));
    same('an error: its fields', [duplicate.code, duplicate.constraint, duplicate.severity], ['23505', `${table}_pkey`, 'ERROR']);
    const wrong = new URL(url);
    wrong.password = 'npg_wrong';
    const login = await refused('a wrong password', () => neon(wrong.href)`select 1`);
    check('a wrong password', /password authentication failed/.test(login.message), login.message);

    const results = await part('a transaction', () =>
      sql.transaction([sql`select count(*)::int as n from serverless_driver_test`, sql`show transaction_isolation`], {
        isolationLevel: 'RepeatableRead',
        readOnly: true,
      }),
    );
    same('a transaction', [results[0][0].n, results[1][0].transaction_isolation], [2, 'repeatable read']);
    const readOnly = await refused('a read-only transaction', () =>
      sql.transaction([sql`insert into serverless_driver_test values (3)`], { readOnly: true }),
    );
    same('a read-only transaction', readOnly.code, '25006');
    await refused('a failed transaction', () =>
      sql.transaction([sql`insert into serverless_driver_test values (4)`, sql`insert into serverless_driver_test values (1)`]),
    );
    const left = await sql`select count(*)::int as n from serverless_driver_test`;
    same('a failed transaction leaves nothing', left, [{ n: 2 }]);
  } finally {
    await sql.query(`drop table ${table}`);
  }
});
