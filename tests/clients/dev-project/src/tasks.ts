import { metadata, schedules, task, tasks } from '@trigger.dev/sdk';

/** What it was given, where it ran, and what the environment's variables say. */
export const echo = task({
  id: 'echo',
  run: async (payload: unknown, { ctx }) => {
    metadata.set('seen', ctx.attempt.number);
    return {
      payload,
      greeting: process.env['GREETING'],
      environment: ctx.environment.slug,
      runtime: 'Bun' in globalThis ? 'bun' : 'node',
    };
  },
});

/** Fails as often as it is told to, and then says at which attempt it got through. */
export const flaky = task({
  id: 'flaky',
  retry: { maxAttempts: 3, minTimeoutInMs: 100, maxTimeoutInMs: 200, factor: 1 },
  run: async ({ failures }: { failures: number }, { ctx }) => {
    if (ctx.attempt.number <= failures) throw new TypeError(`attempt ${ctx.attempt.number} fails`);
    return { attempt: ctx.attempt.number };
  },
});

/** Goes on until it is stopped. */
export const sleeper = task({
  id: 'sleeper',
  run: async (_: unknown, { signal }) => {
    await new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('stopped'))));
  },
});

export const parent = task({
  id: 'parent',
  run: async () => ({ child: (await tasks.trigger('echo', { from: 'parent' })).id }),
});

export const tick = schedules.task({
  id: 'tick',
  cron: '0 0 1 1 *',
  run: async ({ timestamp, type }) => ({ date: timestamp instanceof Date, type }),
});
