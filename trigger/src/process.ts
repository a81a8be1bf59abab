// One run of the psn program: its payload on standard input, its events on standard output, and an end in every case.
import { spawn } from 'node:child_process';
import { access, chmod, constants, copyFile, mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type PsnError, type PsnEvent, PsnFailure, parseEvent } from './events.js';

/** Milliseconds that psn gets to end after SIGTERM: it closes its database connections. Then it is killed. */
const GRACE_MS = 5_000;
/** Characters of psn's standard error that an unexplained end shows. */
const LAST_WORDS = 2_000;

export interface PsnRun {
  program: string;
  args: string[];
  payload: unknown;
  env: NodeJS.ProcessEnv;
  signal: AbortSignal;
  onEvent: (event: PsnEvent) => void;
  /** For tests. */
  graceMs?: number;
}

/** The task's output. Throws a PsnFailure where psn says why, an Error where it could not. */
export async function runPsn(run: PsnRun): Promise<unknown> {
  run.signal.throwIfAborted();
  const child = spawn(run.program, run.args, { env: run.env, stdio: ['pipe', 'pipe', 'pipe'] });
  let killer: NodeJS.Timeout | undefined;
  const stop = () => {
    child.kill('SIGTERM');
    killer = setTimeout(() => child.kill('SIGKILL'), run.graceMs ?? GRACE_MS);
  };
  run.signal.addEventListener('abort', stop, { once: true });
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => resolve({ code, signal }));
  });
  // Where psn ends before it has read its payload, its exit says why; a broken pipe would only hide that.
  child.stdin.on('error', () => undefined);
  child.stdin.end(JSON.stringify(run.payload ?? {}));
  let words = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    words = (words + text).slice(-LAST_WORDS);
  });

  let done = false;
  let output: unknown;
  let failure: PsnError | undefined;
  const lines = createInterface({ input: child.stdout, crlfDelay: Number.POSITIVE_INFINITY });
  lines.on('line', (line) => {
    const event = parseEvent(line);
    if (event === undefined) return;
    if (event.type === 'error') failure ??= event.error;
    if (event.type === 'step' && event.error) failure ??= event.error;
    if (event.type === 'step' && event.status === 'success') {
      done = true;
      output = event.data;
    }
    run.onEvent(event);
  });
  try {
    const { code, signal } = await ended;
    run.signal.throwIfAborted();
    if (code === 0 && done) return output;
    if (failure) throw new PsnFailure(failure);
    throw new Error(
      `psn ended with ${signal ?? `exit code ${code}`} and no result: ${words.trim() || 'it said nothing'}`,
    );
  } finally {
    run.signal.removeEventListener('abort', stop);
    clearTimeout(killer);
    lines.close();
  }
}

let prepared: Promise<string> | undefined;

/** The bundled program, made executable: an upload may have lost that, and an image may be read-only. */
export function psnProgram(bundled: string): Promise<string> {
  prepared ??= prepare(bundled);
  return prepared;
}

async function prepare(bundled: string): Promise<string> {
  try {
    await access(bundled, constants.X_OK);
    return bundled;
  } catch {
    await access(bundled, constants.R_OK).catch(() => {
      throw new Error(`${bundled} is not in this deployment; deploy again with: psn run trigger-provision`);
    });
    const copy = join(await mkdtemp(join(tmpdir(), 'psn-')), 'psn');
    await copyFile(bundled, copy);
    await chmod(copy, 0o755);
    return copy;
  }
}
