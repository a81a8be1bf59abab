#!/usr/bin/env bash
# The bench on a Postgres of its own, which it makes and removes. ROWS, BATCH, GROWTH: see bench.mjs. PG_BIN: the folder of initdb.
set -euo pipefail
cd "$(dirname "$0")"
npm ci --silent --no-audit --no-fund --ignore-scripts >&2
bin=${PG_BIN:-$(pg_config --bindir)}
work=$(mktemp -d "${TMPDIR:-/tmp}/psn-bench.XXXXXX")
as=()
# Postgres does not run as root.
if [ "$(id -u)" = 0 ]; then as=(runuser -u nobody --); chown nobody "$work"; fi
stop() { "${as[@]}" "$bin/pg_ctl" -D "$work/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$work"; }
trap stop EXIT
cd "$work"
"${as[@]}" "$bin/initdb" -D "$work/data" -U postgres --auth=trust -N >/dev/null
"${as[@]}" "$bin/pg_ctl" -D "$work/data" -l "$work/log" -w start \
    -o "-p 5432 -k $work -c listen_addresses='' -c shared_buffers=512MB -c max_wal_size=4GB -c autovacuum=off" >/dev/null
cd - >/dev/null
# pg-boss 12 needs a Node.js that not every distribution has.
node=(node)
node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 22 || (a === 22 && b >= 12) ? 0 : 1)' ||
    node=(npm exec --yes --package=node@24.21.0 -- node)
PGHOST=$work PGPORT=5432 PGUSER=postgres "${node[@]}" bench.mjs
