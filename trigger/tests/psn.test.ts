// A task as Trigger.dev is told of it, and what one run of it does. Trigger.dev's SDK is a double here; scripts/deploy.sh has the real one.
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { PsnFailure } from '../src/events.js';

const told = vi.hoisted(() => ({ tasks: [] as Told[], logs: [] as unknown[][], metadata: new Map<string, unknown>() }));

interface Told {
  kind: 'task' | 'schedule';
  id: string;
  cron?: unknown;
  run: (payload: unknown, context: unknown) => Promise<unknown>;
  catchError: (params: { error: unknown }) => Promise<unknown>;
  [option: string]: unknown;
}

vi.mock('@trigger.dev/sdk', () => {
  const tell = (kind: Told['kind']) => (options: Omit<Told, 'kind'>) => told.tasks.push({ ...options, kind } as Told);
  const log =
    (level: string) =>
    (...words: unknown[]) =>
      told.logs.push([level, ...words]);
  return {
    task: tell('task'),
    schedules: { task: tell('schedule') },
    logger: { debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error') },
    metadata: { set: (name: string, value: unknown) => told.metadata.set(name, value) },
  };
});

const { psnTask } = await import('../src/psn.js');

process.env['PSN_PROGRAM'] = fileURLToPath(new URL('./fake-psn.mjs', import.meta.url));

function tellOf(spec: Parameters<typeof psnTask>[0]): Told {
  psnTask(spec);
  const last = told.tasks.at(-1);
  if (last === undefined) throw new Error('nothing was told');
  return last;
}

const context = (signal = new AbortController().signal) => ({
  ctx: { run: { id: 'run_1' }, attempt: { number: 2 } },
  signal,
});

beforeEach(() => {
  told.logs.length = 0;
  told.metadata.clear();
  delete process.env['PSN_SCHEDULES'];
});

describe('a task', () => {
  const retry = { maxAttempts: 3, minTimeoutInMs: 1000, maxTimeoutInMs: 10_000, factor: 2, randomize: true };
  const watchdog = { id: 'watchdog', component: 'components/watchdog.wasm', cron: '*/15 * * * *', hourly: '0 * * * *' };

  it('is told to Trigger.dev as its manifest has it', () => {
    const scheduled = tellOf({ ...watchdog, maxDurationSeconds: 60, retry });
    expect(scheduled).toMatchObject({
      kind: 'schedule',
      id: 'watchdog',
      cron: { pattern: '*/15 * * * *', timezone: 'UTC' },
      maxDuration: 60,
      retry,
    });
    const plain = tellOf({ id: 'publish-post', component: 'components/publish-post.wasm', queue: 'posts' });
    expect(plain).toMatchObject({ kind: 'task', id: 'publish-post', queue: { name: 'posts' } });
    expect(plain.cron).toBeUndefined();
  });

  it('follows the plan', () => {
    process.env['PSN_SCHEDULES'] = 'hourly';
    expect(tellOf(watchdog)).toMatchObject({ kind: 'schedule', cron: { pattern: '0 * * * *' } });
    process.env['PSN_SCHEDULES'] = 'hourly -watchdog';
    expect(tellOf(watchdog).kind).toBe('task');
  });

  it('starts psn with its component, and shows what it says', async () => {
    const at = new Date('2026-01-01T00:15:00Z');
    const output = await tellOf(watchdog).run({ timestamp: at, dry_run: true }, context());
    expect(output).toEqual({
      args: [
        'components/watchdog.wasm',
        '--store',
        process.cwd(),
        '--run-id',
        'run_1',
        '--attempt',
        '2',
        '--scheduled-at',
        at.toISOString(),
      ],
      payload: { timestamp: at.toISOString(), dry_run: true },
    });
    expect(told.logs).toEqual([['warn', 'watchdog: one post is stuck', { post: 'p1' }]]);
    expect(told.metadata.get('progress')).toEqual({ done: 1, total: 3, message: 'rescuing' });
    expect(told.metadata.get('status')).toBe('success');
  });

  it('names the compiled code to a worker', async () => {
    const compiled = `sha256-${'ab'.repeat(32)}`;
    const { args } = (await tellOf({ ...watchdog, compiled }).run({}, context())) as { args: string[] };
    expect(args.slice(-2)).toEqual(['--compiled', compiled]);
  });

  it('starts nothing once its run is cancelled', async () => {
    const cancelled = context(AbortSignal.abort(new Error('cancelled')));
    await expect(tellOf(watchdog).run({}, cancelled)).rejects.toThrow('cancelled');
  });

  it('is tried again when its failure says', async () => {
    const { catchError } = tellOf({ ...watchdog, retry });
    const failure = { code: 'a.b', message: '', fix: [], retryable: true, retry_after_ms: 1500 };
    expect(await catchError({ error: new PsnFailure(failure) })).toEqual({ retryDelayInMs: 1500 });
    expect(await catchError({ error: new Error('the policy decides') })).toBeUndefined();
  });
});
