#!/usr/bin/env bash
# Type-checks, lints and tests trigger/, what runs psn's tasks in Trigger.dev's cloud, and the project that psn writes around it.
# PSN_PROGRAM names a psn that is built already.
# Exit code 3: this machine has no Node.js that can run its tools.
set -euo pipefail
cd "$(dirname "$0")/../trigger"

if ! node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)' 2>/dev/null; then
    echo "trigger/ needs Node.js 20.19 or later; here is $(node --version 2>/dev/null || echo none)" >&2
    exit 3
fi
if ! command -v npm >/dev/null; then
    echo "the tools of trigger/ are installed with npm, which is not here" >&2
    exit 3
fi
if ! cmp -s package-lock.json node_modules/.installed-from; then
    npm ci --no-progress >&2
    cp package-lock.json node_modules/.installed-from
fi
psn() { if [[ -n ${PSN_PROGRAM-} ]]; then "$PSN_PROGRAM" "$@"; else (cd .. && cargo psn "$@"); fi; }

npm run --silent check
# What psn writes is held to the same rules as what people write.
psn --project "$(cd .. && pwd)" task export "$PWD/exported" >/dev/null
node_modules/.bin/tsc --noEmit --project exported
npm run --silent lint
PSN_TEST_RUNTIME=node npm run --silent test
bun=(node_modules/@oven/bun-*/bin/bun)
PSN_TEST_RUNTIME=bun "${bun[0]}" --bun node_modules/vitest/vitest.mjs run
