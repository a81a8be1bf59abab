// Schedules that callers make, and those that a deployment declares.
import { schedules } from '@trigger.dev/sdk';
import { check, part, same } from '../lib.mjs';
import { all, ONCE, refusal } from './common.mjs';

/** Hour and minute of this moment, as a clock in that zone shows them. */
function clock(date, timeZone) {
  return new Intl.DateTimeFormat('en-GB', { timeZone, hour: '2-digit', minute: '2-digit' }).format(date);
}

export async function plans({ mark }) {
  const plan = { task: 'tick', cron: '30 9 * * *', timezone: 'Europe/Berlin', deduplicationKey: mark, externalId: `${mark}-x` };
  const made = await part('schedules.create', () => schedules.create(plan));
  same('schedules.create', [made.active, made.type, made.deduplicationKey, made.timezone], [true, 'IMPERATIVE', mark, 'Europe/Berlin']);
  same('schedules.create: nextRun is in its zone', clock(made.nextRun, 'Europe/Berlin'), '09:30');
  check('schedules.create: nextRun is to come', made.nextRun > new Date() && made.nextRun - Date.now() < 90_000_000, `${made.nextRun}`);

  const again = await part('schedules.create: again', () => schedules.create({ ...plan, cron: '0 10 * * *' }));
  same('schedules.create: one for each key', again.id, made.id);
  same('schedules.create: the later word counts', again.generator.expression, '0 10 * * *');
  same('schedules.retrieve', (await schedules.retrieve(made.id)).externalId, `${mark}-x`);

  same('schedules.deactivate', (await part('schedules.deactivate', () => schedules.deactivate(made.id))).active, false);
  same('schedules.deactivate: it stays so', (await schedules.retrieve(made.id)).active, false);
  same('schedules.activate', (await part('schedules.activate', () => schedules.activate(made.id))).active, true);

  const change = { task: 'tick', cron: '0 11 * * 1-5', timezone: 'Pacific/Auckland', deduplicationKey: mark };
  const changed = await part('schedules.update', () => schedules.update(made.id, change));
  same('schedules.update', [changed.id, changed.generator.expression, changed.timezone], [made.id, '0 11 * * 1-5', 'Pacific/Auckland']);
  same('schedules.update: nextRun is in the new zone', clock(changed.nextRun, 'Pacific/Auckland'), '11:00');

  for (const [name, wrong] of [
    ['no cron', { cron: 'now and then' }],
    ['a day that never comes', { cron: '0 0 30 2 *' }],
    ['a zone that is none', { timezone: 'Mars/Olympus' }],
    ['a task that is none', { task: `${mark}-none` }],
    ['a task without schedules', { task: 'ok' }],
  ]) {
    same(`schedules.create: ${name}`, await refusal(schedules.create({ ...plan, ...wrong, deduplicationKey: `${mark}-w` }, ONCE)), 422);
  }

  const more = [];
  for (const n of [1, 2, 3, 4]) more.push((await schedules.create({ ...plan, deduplicationKey: `${mark}-${n}` })).id);
  const listed = await part('schedules.list: all pages', () => all(schedules.list({ perPage: 2 })));
  const found = listed.map(({ id }) => id);
  same('schedules.list: each once', new Set(found).size, found.length);
  check('schedules.list: all of them', [made.id, ...more].every((id) => found.includes(id)), found.join(' '));
  const second = await schedules.list({ page: 2, perPage: 2 });
  same('schedules.list: the second page', second.data.map(({ id }) => id), found.slice(2, 4));
  same('schedules.list: its count', second.pagination.count, found.length);

  const declared = listed.find(({ type }) => type === 'DECLARATIVE');
  same('schedules: declared by the deployment', [declared?.task, declared?.generator.expression], ['hourly', '0 * * * *']);
  same('schedules.update: a declared one', await refusal(schedules.update(declared.id, { ...change, task: 'hourly' }, ONCE)), 422);

  for (const id of [made.id, ...more]) same('schedules.del', (await part('schedules.del', () => schedules.del(id))).id, id);
  for (const call of [schedules.retrieve, schedules.activate, schedules.deactivate, schedules.del]) {
    same(`schedules.${call.name}: gone`, await refusal(call(made.id, ONCE)), 404);
  }

  const { timezones } = await part('schedules.timezones', () => schedules.timezones());
  check('schedules.timezones', timezones[0] === 'UTC' && timezones.includes('Europe/Berlin'), `${timezones.slice(0, 3)} …`);
  const others = await part('schedules.timezones: without UTC', () => schedules.timezones({ excludeUtc: true }));
  check('schedules.timezones: without UTC', !others.timezones.includes('UTC') && others.timezones.includes('Asia/Tokyo'), 'UTC is there');
}
