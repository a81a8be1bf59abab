// A Trigger.dev task for each of psn's: it starts the bundled psn with one component and what that was granted.
import { join } from 'node:path';
import process from 'node:process';
import { logger, metadata, schedules, task } from '@trigger.dev/sdk';
import { type PsnEvent, PsnFailure } from './events.js';
import { psnProgram, runPsn } from './process.js';

/** As psn writes it from a plugin's manifest. */
export interface PsnTask {
  id: string;
  /** `components/NAME@sha256-….wasm`: psn runs nothing that has another digest. */
  component: string;
  /** `sha256-…` of the component's compiled code, where the bundled program is psn's worker: that runs no other code. */
  compiled?: string;
  cron?: string;
  /** Instead of a `cron` that comes more often than that, where the plan allows no more. */
  hourly?: string;
  timezone?: string;
  maxDurationSeconds?: number;
  queue?: string;
  retry?: {
    maxAttempts?: number;
    minTimeoutInMs?: number;
    maxTimeoutInMs?: number;
    factor?: number;
    randomize?: boolean;
  };
}

interface Context {
  ctx: { run: { id: string }; attempt: { number: number } };
  signal: AbortSignal;
}

/** The variable of the environment that says what the plan allows. It is there when the tasks are listed, and when they run. */
const PLAN = 'PSN_SCHEDULES';

/** Where Trigger.dev puts what is bundled: the folder that a worker is started in. */
const ROOT = process.cwd();

export function psnTask(spec: PsnTask) {
  const common = {
    id: spec.id,
    ...(spec.maxDurationSeconds === undefined ? {} : { maxDuration: spec.maxDurationSeconds }),
    ...(spec.queue === undefined ? {} : { queue: { name: spec.queue } }),
    ...(spec.retry === undefined ? {} : { retry: spec.retry }),
    catchError: async ({ error }: { error: unknown }) => retryOf(error),
  };
  const cron = cronOf(spec, process.env[PLAN]);
  if (cron === undefined) {
    return task({
      ...common,
      run: async (payload: unknown, context: Context) => await execute(spec, payload, context),
    });
  }
  return schedules.task({
    ...common,
    cron: { pattern: cron, timezone: spec.timezone ?? 'UTC' },
    run: async (payload, context: Context) => await execute(spec, payload, context, payload.timestamp),
  });
}

/**
 * What the plan of the organisation leaves of a schedule. psn sets the variable after the plan refused a deployment: `hourly`, and
 * `-ID` for each task that gets no schedule, separated by blanks.
 */
export function cronOf(spec: Pick<PsnTask, 'id' | 'cron' | 'hourly'>, plan: string | undefined): string | undefined {
  const words = (plan ?? '').split(' ');
  if (words.includes(`-${spec.id}`)) return undefined;
  return words.includes('hourly') ? (spec.hourly ?? spec.cron) : spec.cron;
}

/** A failure's own wish for when to be tried again; without one, the task's policy decides. */
export function retryOf(error: unknown): { retryDelayInMs: number } | undefined {
  if (error instanceof PsnFailure && error.retryAfterMs !== undefined) {
    return { retryDelayInMs: error.retryAfterMs };
  }
  return undefined;
}

async function execute(
  spec: PsnTask,
  payload: unknown,
  { ctx, signal }: Context,
  scheduledAt?: Date,
): Promise<unknown> {
  const program = await psnProgram(process.env['PSN_PROGRAM'] ?? join(ROOT, 'bin', 'psn'));
  const args = [
    'cloud-run',
    spec.component,
    '--store',
    ROOT,
    '--run-id',
    ctx.run.id,
    '--attempt',
    `${ctx.attempt.number}`,
  ];
  if (spec.compiled !== undefined) args.push('--compiled', spec.compiled);
  // A schedule that was triggered by hand has a payload of the caller's.
  if (scheduledAt instanceof Date) args.push('--scheduled-at', scheduledAt.toISOString());
  return await runPsn({ program, args, payload, env: process.env, signal, onEvent: show });
}

/** What psn says, where people look for it in Trigger.dev: logs in the run's trace, progress in its metadata. */
export function show(event: PsnEvent): void {
  if (event.type === 'log') {
    logger[event.level](`${event.source}: ${event.message}`, event.fields);
  } else if (event.type === 'progress') {
    metadata.set('progress', { done: event.done, total: event.total, message: event.message });
  } else if (event.type === 'step') {
    metadata.set('status', event.status);
  }
}
