// What the client scripts share: endpoints from the environment, one JSON line per assertion, the end at the first failure.
import process from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';

const secrets = [];

/** An assertion that does not hold. */
class Failed extends Error {
  constructor(name, message) {
    super(message);
    this.check = name;
  }
}

/** The whole script. Its first failure is its last line, and exit code 1. */
export async function main(work) {
  try {
    await work();
  } catch (error) {
    const name = error instanceof Failed ? error.check : 'script';
    line({ check: name, status: 'fail', message: error instanceof Failed ? error.message : describe(error) });
    process.exitCode = 1;
  }
}

/** A value that must not be in any output. */
export function secret(value) {
  if (value) secrets.push(value);
  return value;
}

/** An environment variable that the script cannot do without. */
export function need(name, what) {
  const value = process.env[name];
  if (!value) throw new Failed('environment', `${name} is not set: ${what}`);
  return value;
}

/** Says that something holds; ends the script where it does not. */
export function check(name, holds, message) {
  if (!holds) throw new Failed(name, message);
  line({ check: name, status: 'pass' });
}

export function same(name, found, expected) {
  check(name, isDeepStrictEqual(found, expected), `expected ${JSON.stringify(expected)}, found ${JSON.stringify(found)}`);
}

/** A part of a script: what it throws is a failure of this name. */
export async function part(name, work) {
  try {
    return await work();
  } catch (error) {
    throw error instanceof Failed ? error : new Failed(name, describe(error));
  }
}

/** Asks until the answer is there; the end of patience is a failure. `ask` answers `{ done }`, or `{ seen }` for the message. */
export async function until(name, seconds, ask) {
  const patience = Date.now() + seconds * 1000;
  for (;;) {
    const { done, seen } = await ask();
    if (done !== undefined) return done;
    if (Date.now() > patience) throw new Failed(name, `not within ${seconds} s; last seen: ${seen}`);
    await sleep(200);
  }
}

function describe(error) {
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}

function line(object) {
  let text = JSON.stringify(object);
  for (const value of secrets) text = text.replaceAll(value, '[redacted]');
  console.log(text);
}
