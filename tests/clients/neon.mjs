// The real `neon` CLI against a Neon API: lists, creates and deletes projects, and prints a connection string that psql and
// node-postgres accept.
//
//   NEON_API_HOST  the API's base, for example http://127.0.0.1:4701/api/v2
//   NEON_API_KEY   a key for it
//   PSN_CA_PEM     the certificate authority that the databases' certificates are checked against
//   PSQL           the psql to use [default: psql]
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { check, main, need, part, same, secret, until } from './lib.mjs';

/** Seconds. A local project is a Postgres cluster of its own: making one takes some on a busy machine. */
const PROJECT_LIMIT = 120;
/** Milliseconds. The CLI gives up on a request after 60 s. */
const COMMAND_LIMIT = 90_000;

const CLI = fileURLToPath(new URL('node_modules/neon/dist/cli.js', import.meta.url));
const DATABASE = 'hub';
const ROLE = 'hub_owner';

// The CLI keeps credentials and a context in its home and its folder: neither is the user's here.
const home = mkdtempSync(path.join(tmpdir(), 'psn-neon-cli-'));
process.on('exit', () => rmSync(home, { recursive: true, force: true }));

function run(program, args, env) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      cwd: home,
      env: { PATH: process.env.PATH, HOME: home, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: COMMAND_LIMIT,
    });
    const out = { stdout: '', stderr: '' };
    for (const stream of ['stdout', 'stderr']) {
      child[stream].setEncoding('utf8').on('data', (text) => (out[stream] += text));
    }
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ ...out, code: code ?? signal }));
  });
}

/** The CLI with this key, for this API. The key is no argument: arguments can be read by every program on the machine. */
function cli(host, key) {
  const common = ['--api-host', host, '--config-dir', home, '--no-analytics', '--no-color', '--output', 'json'];
  const raw = (...args) => run(process.execPath, [CLI, ...args, ...common], { CI: '1', NEON_API_KEY: key });
  const text = async (...args) => {
    const { code, stdout, stderr } = await raw(...args);
    if (code !== 0) throw new Error(`neon ${args.join(' ')} ended with ${code}: ${stderr.trim() || stdout.trim()}`);
    return stdout;
  };
  return { raw, text, json: async (...args) => JSON.parse(await text(...args)) };
}

const sorted = (list, field) => list.map((item) => item[field]).sort();

await main(async () => {
  const host = need('NEON_API_HOST', "the base URL of a Neon API, such as the local hub's");
  const key = secret(need('NEON_API_KEY', 'a key that this API accepts'));
  const ca = need('PSN_CA_PEM', "the path of the databases' certificate authority (PEM)");
  const neon = cli(host, key);

  const orgs = await part('orgs list', () => neon.json('orgs', 'list'));
  check('orgs list', orgs.length > 0 && orgs.every((org) => org.id && org.name), 'none, or one without id and name');
  const org = orgs[0].id;
  const list = async (...more) => sorted(await neon.json('projects', 'list', '--org-id', org, ...more), 'id');

  const before = await part('projects list', () => list());
  const name = `psn-client-${randomBytes(4).toString('hex')}`;
  const { project, connection_uris } = await part('projects create', () =>
    neon.json('projects', 'create', '--name', name, '--org-id', org, '--database', DATABASE, '--role', ROLE),
  );
  let exists = true;
  try {
    connection_uris.forEach((uri) => secret(uri.connection_parameters?.password));
    same('projects create', [project.name, connection_uris.length], [name, 1]);
    const made = (await part('projects list', () => list())).filter((id) => !before.includes(id));
    same('projects list', made, [project.id]);
    same('projects get', (await part('projects get', () => neon.json('projects', 'get', project.id))).name, name);
    await settled(neon, project.id);

    const of = ['--project-id', project.id];
    same('roles list', sorted(await part('roles list', () => neon.json('roles', 'list', ...of)), 'name'), [ROLE]);
    same('databases list', sorted(await part('databases list', () => neon.json('databases', 'list', ...of)), 'name'), [DATABASE]);
    for (const command of [['connection-string'], ['connection-string', '--pooled']]) {
      const text = await part(command.join(' '), () => neon.text(...command, ...of));
      await connects(command.join(' '), new URL(text.trim()), ca);
    }

    const deleted = await part('projects delete', () => neon.json('projects', 'delete', project.id));
    exists = false;
    same('projects delete', deleted.id, project.id);
    same('projects list: gone', await part('projects list', () => list()), before);
    const recoverable = await part('projects list --recoverable-only', () => list('--recoverable-only'));
    check('projects list --recoverable-only', recoverable.includes(project.id), 'the deleted project is not in it');
  } finally {
    if (exists) await neon.raw('projects', 'delete', project.id);
  }

  const refused = await cli(host, 'napi_not_a_key').raw('projects', 'list', '--org-id', org);
  check('a wrong key is refused', refused.code === 1, `the CLI ended with ${refused.code}`);
});

/** The CLI does not wait for what it started. */
async function settled(neon, project) {
  const name = 'operations list: all ended well';
  const operations = await part(name, () =>
    until(name, PROJECT_LIMIT, async () => {
      const all = await neon.json('operations', 'list', '--project-id', project);
      const open = all.filter(({ status }) => ['scheduling', 'running', 'cancelling'].includes(status));
      return all.length > 0 && open.length === 0 ? { done: all } : { seen: JSON.stringify(all.map((o) => [o.action, o.status])) };
    }),
  );
  const bad = operations.filter(({ status }) => !['finished', 'skipped'].includes(status));
  check(name, bad.length === 0, bad.map((o) => `${o.action} ended as ${o.status}: ${o.error ?? 'no reason given'}`).join('; '));
}

/** What a client does with a connection string: as it is, with the server verified, and, which must fail, without TLS. */
async function connects(what, url, ca) {
  secret(decodeURIComponent(url.password));
  const psql = async (uri) => {
    const args = ['-XAtw', '-d', uri, '-c', 'select current_user, current_database(), 1'];
    const { code, stdout, stderr } = await part(`${what}: psql`, () => run(process.env.PSQL ?? 'psql', args, { PGCONNECT_TIMEOUT: '20' }));
    return code === 0 ? stdout.trim() : `psql ended with ${code}: ${stderr.trim()}`;
  };
  const expected = `${ROLE}|${DATABASE}|1`;
  same(`${what}: TLS is required`, url.searchParams.get('sslmode'), 'require');
  same(`${what}: psql accepts it as it is`, await psql(url.href), expected);

  const verified = new URL(url);
  verified.searchParams.set('sslmode', 'verify-full');
  verified.searchParams.set('sslrootcert', ca);
  same(`${what}: psql verifies the server`, await psql(verified.href), expected);

  const client = new pg.Client({ connectionString: verified.href, connectionTimeoutMillis: 20_000 });
  const rows = await part(`${what}: node-postgres verifies the server`, async () => {
    await client.connect();
    try {
      return (await client.query('select current_user::text as who, 1 as one')).rows;
    } finally {
      await client.end();
    }
  });
  same(`${what}: node-postgres verifies the server`, rows, [{ who: ROLE, one: 1 }]);

  const plain = new URL(url);
  plain.search = '?sslmode=disable';
  const answer = await psql(plain.href);
  check(`${what}: no connection without TLS`, answer !== expected, 'psql got in without TLS');
}
