// Too many calls are refused in the vendor's words, and the SDK gets through by waiting. The development key has a bucket of its own.
import { runs } from '@trigger.dev/sdk';
import { check, part, same, secret } from '../lib.mjs';
import { as } from './common.mjs';

/** Requests that empty the vendor's bucket of 750 whatever was taken before. */
const TOO_MANY = 800;
const AT_ONCE = 40;

export async function rateLimit({ baseURL, token, project }) {
  const environment = await fetch(`${baseURL}/api/v1/projects/${project}/dev`, { headers: { authorization: `Bearer ${token}` } });
  const key = secret((await environment.json()).apiKey);
  const ask = () => fetch(`${baseURL}/api/v3/runs/none`, { headers: { authorization: `Bearer ${key}` } });
  let refused;
  let least = Number.POSITIVE_INFINITY;
  for (let asked = 0; asked < TOO_MANY && !refused; asked += AT_ONCE) {
    const replies = await Promise.all(Array.from({ length: AT_ONCE }, ask));
    refused = replies.find((reply) => reply.status === 429);
    least = Math.min(least, ...replies.map((reply) => Number(reply.headers.get('x-ratelimit-remaining'))));
    await Promise.all(replies.filter((reply) => reply !== refused).map((reply) => reply.text()));
  }
  check('rate limit: refused', refused, `${TOO_MANY} calls went through`);
  same('rate limit: counted down', least, 0);
  same('rate limit: kind', refused.headers.get('content-type'), 'application/problem+json');
  const body = await refused.json();
  same('rate limit: body', [body.title, body.status, body.limit, body.remaining], ['Rate Limit Exceeded', 429, 750, -1]);
  const reset = Number(refused.headers.get('x-ratelimit-reset'));
  check('rate limit: reset', reset > Date.now() - 11_000 && reset === body.reset, `${reset}`);
  const page = await part('rate limit: the SDK waits', () => as(baseURL, key, () => runs.list({ limit: 5 })));
  check('rate limit: and gets through', Array.isArray(page.data) && Date.now() >= reset - 100, 'no list, or it did not wait');
}
