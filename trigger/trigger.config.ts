import { additionalFiles } from '@trigger.dev/build/extensions/core';
import { defineConfig } from '@trigger.dev/sdk';

// psn sets the first two when it deploys; the third is `trigger.runtime` in config/psn.toml.
const project = process.env['TRIGGER_PROJECT_REF'] ?? '';
const runtime = process.env['PSN_TRIGGER_RUNTIME'] === 'node-24' ? 'node-24' : 'bun-1.4';

export default defineConfig({
  project,
  runtime,
  dirs: ['./src/trigger'],
  // Seconds, for a task whose manifest names no limit.
  maxDuration: 300,
  build: { extensions: [additionalFiles({ files: ['./bin/psn', './components/*'] })] },
});
