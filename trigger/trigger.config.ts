import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { additionalFiles } from '@trigger.dev/build/extensions/core';
import { defineConfig } from '@trigger.dev/sdk';
import { maxDuration, runtime } from './src/settings.js';

// The CLI runs the tasks' files once to list what is in them, and looks for bun in the person's home folder. The one that
// package.json pins is in node_modules, under a name that depends on the machine. A worker's image has neither.
const pinned = fileURLToPath(new URL('./node_modules/@oven', import.meta.url));
if (process.env['BUN_INSTALL'] === undefined && existsSync(pinned)) {
  const found = readdirSync(pinned).find((name) => existsSync(join(pinned, name, 'bin', 'bun')));
  if (found !== undefined) process.env['BUN_INSTALL'] = join(pinned, found);
}

export default defineConfig({
  // psn and people name the project with --project-ref.
  project: process.env['TRIGGER_PROJECT_REF'] ?? 'proj_named_by_project_ref',
  runtime,
  dirs: ['./src/trigger'],
  maxDuration,
  build: { extensions: [additionalFiles({ files: ['./psn.json', './bin/psn', './components/*'] })] },
});
