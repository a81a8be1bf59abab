#!/usr/bin/env node
// Says what its argument names, as psn would.
import process from 'node:process';

let payload = '';
for await (const chunk of process.stdin) payload += chunk;
const say = (event) => console.log(JSON.stringify(event));
const error = {
  code: 'publish-post.service-busy',
  message: 'come back later',
  fix: ['psn task runs'],
  retryable: true,
};

switch (process.argv[2]) {
  case 'echo':
    say({ type: 'log', level: 'info', source: 'echo', message: 'here', fields: { n: 1 } });
    say({ type: 'progress', source: 'echo', done: 1, total: 2, message: 'half' });
    console.log('not an event');
    say({ type: 'step', step: 'echo', status: 'success', message: 'done', data: JSON.parse(payload) });
    break;
  case 'fail':
    say({
      type: 'step',
      step: 'fail',
      status: 'error',
      message: error.message,
      error: { ...error, retry_after_ms: 1500 },
    });
    process.exitCode = 1;
    break;
  case 'cloud-run':
    say({ type: 'log', level: 'warn', source: 'watchdog', message: 'one post is stuck', fields: { post: 'p1' } });
    say({ type: 'progress', source: 'watchdog', done: 1, total: 3, message: 'rescuing' });
    say({
      type: 'step',
      step: 'watchdog',
      status: 'success',
      message: 'done',
      data: { args: process.argv.slice(3), payload: JSON.parse(payload) },
    });
    break;
  case 'silent':
    console.error('something broke');
    process.exitCode = 7;
    break;
  case 'hollow':
    // Exit code 0 alone proves nothing.
    break;
  case 'deaf':
    process.on('SIGTERM', () => undefined);
    say({ type: 'log', level: 'info', source: 'deaf', message: 'ready' });
    setInterval(() => undefined, 1000);
    break;
  case 'polite':
    process.on('SIGTERM', () => process.exit(130));
    say({ type: 'log', level: 'info', source: 'polite', message: 'ready' });
    setInterval(() => undefined, 1000);
    break;
}
