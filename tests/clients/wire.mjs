// Preloaded by `node --import`: keeps what a Trigger.dev API answers to this process, and to those that it starts, as lines of JSON.
//
//   PSN_WIRE_RECORD  the file that the lines are added to
//   PSN_WIRE_ORIGIN  the API's origin; calls to others are not kept
import { appendFileSync } from 'node:fs';
import process from 'node:process';

const { PSN_WIRE_RECORD: file, PSN_WIRE_ORIGIN: origin } = process.env;
const real = globalThis.fetch;

if (file && origin) {
  globalThis.fetch = async (input, init) => {
    const reply = await real(input, init);
    const target = new URL(typeof input === 'object' && 'url' in input ? input.url : String(input));
    if (target.origin === origin) {
      const method = (init?.method ?? (typeof input === 'object' ? input.method : undefined) ?? 'GET').toUpperCase();
      const kind = reply.headers.get('content-type') ?? '';
      // A stream has no end to wait for.
      const body = kind.includes('json') ? await reply.clone().text() : null;
      // One write: several processes add to the file.
      appendFileSync(file, `${JSON.stringify({ method, path: target.pathname, status: reply.status, kind, body })}\n`);
    }
    return reply;
  };
}
