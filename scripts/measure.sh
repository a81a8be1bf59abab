#!/usr/bin/env bash
# Sizes, times and memory of a release build, measured here and now: `just measure`. Compare figures of one run only.
# Usage: scripts/measure.sh [RUNS]   (default 5)
set -euo pipefail
runs=${1:-5}
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
cargo build --release --package psn --bin psn
psn=$target/release/psn
work=$(mktemp -d)
chmod 755 "$work"
export PSN_HOME=$work/home
trap '"$psn" local down >/dev/null 2>&1 || true; rm -rf "$work"' EXIT

echo "binary:     $(stat -c %s "$psn") bytes  (stat -c %s target/release/psn)"
cargo run --quiet --release --package psn-plugin-build --bin build-plugins

# The command's wall time in seconds and its peak memory in KiB, on one line.
once() {
    python3 - "$@" <<'PY'
import resource, subprocess, sys, time
start = time.monotonic()
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
wall = time.monotonic() - start
if code:
    sys.exit(f"{' '.join(sys.argv[1:])} ended with {code}")
print(f"{wall:.3f} {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss}")
PY
}
report() { # name, then lines of "seconds KiB" on standard input
    sort -n | awk -v name="$1" '{ s[NR] = $1; if ($2 > m) m = $2 } END { printf "%-28s min %.3f s  median %.3f s  max %.3f s  peak %.1f MiB  (%d runs)\n", name, s[1], s[int((NR + 1) / 2)], s[NR], m / 1024, NR }'
}

for i in $(seq "$runs"); do
    "$psn" local down >/dev/null 2>&1 || true
    rm -rf "$work/home" "$work/project-$i" && mkdir -p "$work/project-$i"
    once "$psn" --project "$work/project-$i" run setup
done | report "first setup, nothing there"
project=$work/project-$runs
for _ in $(seq "$runs"); do once "$psn" --project "$project" run setup; done | report "second setup"
for _ in $(seq "$runs"); do once "$psn" --project "$project" status; done | report "status"
for _ in $(seq "$runs"); do once "$psn" --project "$project" run validate; done | report "run validate"
for _ in $(seq "$runs"); do once "$psn" --project "$project" run watchdog; done | report "run watchdog, nothing stuck"
pid=$("$psn" local status 2>/dev/null | python3 -c 'import json,sys
for line in sys.stdin:
    e = json.loads(line)
    if e["type"] == "result": print(e["data"]["endpoints"]["pid"])')
echo "local hub's daemon, resident: $(awk '/VmRSS/ {print $2 / 1024 " MiB"}' "/proc/$pid/status")"
