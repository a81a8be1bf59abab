#!/usr/bin/env bash
# Installs the vendors' clients that tests/clients/ pins, unless exactly these are there. Safe when several start at once.
# Exit code 3: this machine has no Node.js that can run them.
set -euo pipefail
cd "$(dirname "$0")/../tests/clients"

# The neon CLI's own minimum.
if ! node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)' 2>/dev/null; then
    echo "the vendors' clients need Node.js 20.19 or later; here is $(node --version 2>/dev/null || echo none)" >&2
    exit 3
fi
if ! command -v npm >/dev/null; then
    echo "the vendors' clients are installed with npm, which is not here" >&2
    exit 3
fi

exec 9<package-lock.json
! command -v flock >/dev/null || flock 9
cmp -s package-lock.json node_modules/.installed-from && exit 0
npm ci --no-progress >&2
cp package-lock.json node_modules/.installed-from
