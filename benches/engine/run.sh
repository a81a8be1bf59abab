#!/usr/bin/env bash
# The local hub's run engine beside graphile-worker and pg-boss, in one run on one Postgres: `just bench-engine`.
# JOBS, SAMPLES and ROUNDS say how much; see bench.mjs. PSN_PROGRAM is a psn that is built already [a release build].
set -euo pipefail
program=${PSN_PROGRAM:+$(realpath "$PSN_PROGRAM")}
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
npm ci --no-progress >&2
(
    cd "$root"
    [[ -n $program ]] || cargo build --release --package psn --bin psn
    cargo build --profile guest --target wasm32-unknown-unknown --package psn-fixture-noop-task
)
psn=${program:-$target/release/psn}
component=$target/wasm32-unknown-unknown/guest/psn_fixture_noop_task.wasm

work=$(mktemp -d "${TMPDIR:-/tmp}/psn-bench.XXXXXX")
# As root, psn runs Postgres under another account, which must be able to pass through.
chmod 0711 "$work"
mkdir "$work/project"
export PSN_HOME=$work/home
cd "$work/project"
trap '"$psn" local down >/dev/null 2>&1 || true; rm -rf "$work"' EXIT

field() { python3 -c 'import json, sys
path = sys.argv[1].split(".")
for line in sys.stdin:
    value = json.loads(line)
    for key in path:
        value = value[int(key) if isinstance(value, list) else key] if (isinstance(value, list) or (isinstance(value, dict) and key in value)) else None
        if value is None:
            break
    if value is not None:
        print(value)
        break' "$1"; }

grant=$("$psn" plugin add "$component" 2>/dev/null | field needs.0.next.0.command || true)
read -ra words <<<"${grant#psn }"
"$psn" "${words[@]}" >/dev/null 2>&1
"$psn" run setup >/dev/null 2>&1
TRIGGER_API_URL=$("$psn" local status 2>/dev/null | field data.endpoints.trigger)
TRIGGER_SECRET_KEY=$(sed -n "s/^TRIGGER_SECRET_KEY=['\"]\{0,1\}\([^'\"]*\)['\"]\{0,1\}$/\1/p" config/hub.env)
# As many at once for the others as the local hub's engine executes on this machine.
CONCURRENCY=$("$psn" local status 2>/dev/null | field data.run_slots)
CONCURRENCY=${CONCURRENCY:-4}
PGPASSWORD=$(cat "$PSN_HOME/local-hub/superuser.secret")
# Where the control cluster's postmaster says that it listens: line 4 its port, line 5 its socket's folder.
PGPORT=$(sed -n 4p "$PSN_HOME/local-hub/pg/_control/data/postmaster.pid")
PGHOST=$(sed -n 5p "$PSN_HOME/local-hub/pg/_control/data/postmaster.pid")
PGUSER=cloud_admin
export CONCURRENCY TRIGGER_API_URL TRIGGER_SECRET_KEY PGPASSWORD PGPORT PGHOST PGUSER
node "$root/benches/engine/bench.mjs"
