// How the project runs. psn writes this file anew in what it deploys, from config/psn.toml.

/** `trigger.runtime`: what the tasks run under. */
export const runtime: 'bun-1.4' | 'node-24' = 'bun-1.4';

/** Seconds, for a task whose manifest names no limit. */
export const maxDuration = 300;
