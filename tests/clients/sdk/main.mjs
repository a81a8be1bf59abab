// The real `@trigger.dev/sdk` against a Trigger.dev API: everything that psn's users do with it, in every state of a run.
//
//   TRIGGER_API_URL       the API's origin
//   TRIGGER_SECRET_KEY    the production environment's secret key
//   TRIGGER_ACCESS_TOKEN  the account's token
//   TRIGGER_PROJECT_REF   proj_…
//   PSN_OLD_VERSION       a version that was deployed before the current one, with the same tasks
//   PSN_SCHEDULED_RUN     a run that a schedule started
//
// Deployed are: `ok`, which answers { payload }; `refuse` and `crash`, which end as FAILED and as CRASHED at once; `hang`, which
// goes on until it is stopped, one at a time in its queue `narrow` for each concurrency key; `tick`, for schedules; and `hourly`,
// which declares one.
import { randomUUID } from 'node:crypto';
import { configure } from '@trigger.dev/sdk';
import { main, need, secret } from '../lib.mjs';
import { batches } from './batches.mjs';
import { idempotency } from './idempotency.mjs';
import { lifecycle } from './lifecycle.mjs';
import { lists } from './lists.mjs';
import { rateLimit } from './ratelimit.mjs';
import { plans } from './schedules.mjs';
import { variables } from './variables.mjs';

await main(async () => {
  const hub = {
    baseURL: need('TRIGGER_API_URL', 'the origin of a Trigger.dev API'),
    key: secret(need('TRIGGER_SECRET_KEY', "the environment's secret key")),
    token: secret(need('TRIGGER_ACCESS_TOKEN', "the account's token")),
    project: need('TRIGGER_PROJECT_REF', "the project's reference"),
    oldVersion: need('PSN_OLD_VERSION', 'a version that was deployed before'),
    scheduledRun: need('PSN_SCHEDULED_RUN', 'a run that a schedule started'),
    // Tags and keys of this run of the suite.
    mark: `sdk-${randomUUID()}`,
  };
  configure({ baseURL: hub.baseURL, accessToken: hub.key });
  await lifecycle(hub);
  await idempotency(hub);
  await batches(hub);
  await lists(hub);
  await plans(hub);
  await variables(hub);
  await rateLimit(hub);
});
