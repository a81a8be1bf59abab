// Environment variables: set, seen, hidden, changed and removed, in each environment by itself.
import { envvars } from '@trigger.dev/sdk';
import { check, part, same } from '../lib.mjs';
import { ONCE, refusal } from './common.mjs';

export async function variables({ baseURL, key, project, mark }) {
  const name = `PSN_TEST_${mark.replaceAll('-', '_').toUpperCase()}`;
  const [plain, hidden] = [name, `${name}_S`];
  await part('envvars.upload', () => envvars.upload(project, 'prod', { variables: { [plain]: 'plain' }, override: true }));
  same('envvars.retrieve', (await envvars.retrieve(project, 'prod', plain)).value, 'plain');
  same('envvars.upload: not over what is there', await refusal(envvars.upload(project, 'prod', { variables: { [plain]: 'x' } }, ONCE)), 400);
  same('envvars.retrieve: as before', (await envvars.retrieve(project, 'prod', plain)).value, 'plain');
  await part('envvars.create: a secret', () => envvars.create(project, 'prod', { name: hidden, value: 'hush-hush', isSecret: true }));
  const listed = await part('envvars.list', () => envvars.list(project, 'prod'));
  const find = (name) => listed.find((variable) => variable.name === name);
  same('envvars.list: plain ones are shown', [find(plain)?.value, find(plain)?.isSecret], ['plain', false]);
  same('envvars.list: secrets are not', [find(hidden)?.value, find(hidden)?.isSecret], ['<redacted>', true]);
  same('envvars.retrieve: a secret', (await envvars.retrieve(project, 'prod', hidden)).value, '<redacted>');
  // SDK 4.8.3: `envvars.update` throws a ReferenceError of its own outside of a task, so its call is made by hand.
  const update = await fetch(`${baseURL}/api/v1/projects/${project}/envvars/prod/${plain}`, {
    method: 'PUT',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: JSON.stringify({ value: 'changed' }),
  });
  same('envvars.update', [update.status, (await update.json()).success], [200, true]);
  same('envvars.update: seen', (await envvars.retrieve(project, 'prod', plain)).value, 'changed');
  same('envvars: what the platform sets', await refusal(envvars.create(project, 'prod', { name: 'TRIGGER_SECRET_KEY', value: 'x' }, ONCE)), 400);
  check('envvars: another environment is not this key’s', (await refusal(envvars.list(project, 'dev', ONCE))) >= 400, 'it was shown');
  for (const each of [plain, hidden]) await part('envvars.del', () => envvars.del(project, 'prod', each));
  same('envvars.del: gone', await refusal(envvars.retrieve(project, 'prod', plain, ONCE)), 404);
  same('envvars.del: again', await refusal(envvars.del(project, 'prod', plain, ONCE)), 404);
}
