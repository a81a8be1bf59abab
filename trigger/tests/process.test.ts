import { chmod, copyFile, mkdtemp, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { type PsnEvent, PsnFailure, parseEvent } from '../src/events.js';
import { psnProgram, runPsn } from '../src/process.js';
import { cronOf, retryOf } from '../src/psn.js';

const FAKE = fileURLToPath(new URL('./fake-psn.mjs', import.meta.url));

function run(what: string, signal = new AbortController().signal, onEvent: (e: PsnEvent) => void = () => undefined) {
  const args = [FAKE, what];
  return runPsn({
    program: process.execPath,
    args,
    payload: { a: 1 },
    env: process.env,
    signal,
    onEvent,
    graceMs: 300,
  });
}

describe('a run of psn', () => {
  it('gets its payload, shows its events and answers its output', async () => {
    const seen: string[] = [];
    expect(await run('echo', undefined, (e) => seen.push(e.type))).toEqual({ a: 1 });
    expect(seen).toEqual(['log', 'progress', 'step']);
  });

  it('fails with the code and the wish of its failure', async () => {
    const error = await run('fail').catch((e: unknown) => e);
    expect(error).toBeInstanceOf(PsnFailure);
    expect((error as PsnFailure).code).toBe('publish-post.service-busy');
    expect(retryOf(error)).toEqual({ retryDelayInMs: 1500 });
  });

  it('is no success without a result', async () => {
    await expect(run('hollow')).rejects.toThrow('no result');
    await expect(run('silent')).rejects.toThrow(/exit code 7.*something broke/);
  });

  it('has no wish where there is none', () => {
    expect(retryOf(new Error('x'))).toBeUndefined();
    expect(retryOf(new PsnFailure({ code: 'a.b', message: '', fix: [], retryable: false }))).toBeUndefined();
  });

  it.each(['polite', 'deaf'])('ends when it is cancelled (%s)', async (what) => {
    const cancel = new AbortController();
    const started = Date.now();
    const ended = run(what, cancel.signal, () => cancel.abort(new Error('cancelled')));
    await expect(ended).rejects.toThrow('cancelled');
    expect(Date.now() - started).toBeLessThan(10_000);
  });

  it('is not started when it was cancelled before', async () => {
    await expect(run('echo', AbortSignal.abort(new Error('too late')))).rejects.toThrow('too late');
  });
});

describe('the bundled program', () => {
  it('is made executable where the upload lost that', async () => {
    const bundled = join(await mkdtemp(join(tmpdir(), 'psn-test-')), 'psn');
    await copyFile(FAKE, bundled);
    await chmod(bundled, 0o600);
    const program = await psnProgram(bundled);
    expect(program).not.toBe(bundled);
    expect((await stat(program)).mode & 0o111).not.toBe(0);
  });
});

it('takes from a schedule what the plan does not allow', () => {
  const often = { id: 'watchdog', cron: '*/15 * * * *', hourly: '0 * * * *' };
  const daily = { id: 'digest', cron: '0 6 * * *' };
  for (const [spec, plan, expected] of [
    [often, undefined, '*/15 * * * *'],
    [often, 'as-written', '*/15 * * * *'],
    [often, 'hourly', '0 * * * *'],
    [daily, 'hourly', '0 6 * * *'],
    [daily, 'hourly -digest', undefined],
    [often, '-digest', '*/15 * * * *'],
    [{ id: 'publish-post' }, 'hourly', undefined],
  ] as const) {
    expect(cronOf(spec, plan), `${spec.id} under ${plan}`).toBe(expected);
  }
});

it('runs under the runtime that is meant', () => {
  const wanted = process.env['PSN_TEST_RUNTIME'];
  if (wanted !== undefined) expect('bun' in process.versions ? 'bun' : 'node').toBe(wanted);
});

it('reads events and nothing else', () => {
  expect(parseEvent('{"type":"summary"}')).toEqual({ type: 'summary' });
  for (const line of ['', 'x', '1', 'null', '{"a":1}']) expect(parseEvent(line)).toBeUndefined();
});
