// What the parts of the suite share.
import { auth, runs } from '@trigger.dev/sdk';
import { part, until } from '../lib.mjs';

/** Seconds. Nothing here takes long by itself; a busy machine may. */
export const PATIENCE = 90;
/** States in which a run goes on. The SDK's `isCompleted` leaves out EXPIRED and TIMED_OUT. */
export const OPEN = ['PENDING_VERSION', 'DELAYED', 'QUEUED', 'DEQUEUED', 'EXECUTING', 'WAITING'];
/** One try: the SDK would repeat what is refused on purpose. */
export const ONCE = { retry: { maxAttempts: 1 } };

/** With other credentials than the environment's key. */
export function as(baseURL, accessToken, work) {
  return auth.withAuth({ baseURL, accessToken }, work);
}

export function ids(page) {
  return page.data.map((run) => run.id);
}

/** The status with which a call is refused. */
export async function refusal(promise) {
  return promise.then(
    () => 'nothing',
    (error) => error.status ?? `${error.name}: ${error.message}`,
  );
}

/** The run, once it is in this state. */
export async function reaches(id, status) {
  const name = `${id} is ${status}`;
  return part(name, () =>
    until(name, PATIENCE, async () => {
      const run = await runs.retrieve(id);
      if (run.status === status) return { done: run };
      if (!OPEN.includes(run.status)) throw new Error(`it ended as ${run.status}: ${JSON.stringify(run.error)}`);
      return { seen: run.status };
    }),
  );
}

/** Over all pages. `most` is more than there can be: pages that do not end are a failure. */
export async function all(pages, most = 1_000) {
  const items = [];
  for await (const item of pages) {
    items.push(item);
    if (items.length > most) throw new Error(`more than ${most} items: the pages do not end`);
  }
  return items;
}
