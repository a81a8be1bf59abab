import { defineConfig } from '@trigger.dev/sdk';

export default defineConfig({
  project: process.env['TRIGGER_PROJECT_REF'] ?? '',
  runtime: process.env['PSN_TRIGGER_RUNTIME'] === 'bun-1.4' ? 'bun-1.4' : 'node',
  dirs: ['./src'],
  maxDuration: 60,
});
