// psn's event stream (docs/events.schema.json), as far as a run needs it.

/** What psn says in one line of its standard output. */
export type PsnEvent =
  | {
      type: 'log';
      level: 'debug' | 'info' | 'warn' | 'error';
      source: string;
      message: string;
      fields?: Record<string, unknown>;
    }
  | { type: 'progress'; source: string; done: number; total: number; message: string }
  | { type: 'step'; step: string; status: string; message: string; data?: unknown; error?: PsnError }
  | { type: 'error'; error: PsnError }
  | { type: 'version' | 'check' | 'result' | 'summary' };

export interface PsnError {
  code: string;
  message: string;
  fix: string[];
  retryable: boolean;
  retry_after_ms?: number;
}

/** A line that is no event is not psn's: `undefined`. */
export function parseEvent(line: string): PsnEvent | undefined {
  try {
    const value: unknown = JSON.parse(line);
    if (typeof value === 'object' && value !== null && typeof (value as { type?: unknown }).type === 'string') {
      return value as PsnEvent;
    }
  } catch {
    // Said by something else on the same stream; the caller shows it as it is.
  }
  return undefined;
}

/** A task that ended with a coded error. */
export class PsnFailure extends Error {
  readonly code: string;
  readonly retryAfterMs: number | undefined;

  constructor(error: PsnError) {
    super(`${error.message} (${error.code})`);
    this.name = error.code;
    this.code = error.code;
    this.retryAfterMs = error.retry_after_ms;
  }
}
