#!/usr/bin/env bash
# Builds psn's worker as it is released, and runs it beside a whole psn over a local hub: same answers, same state, and what it refuses.
#   scripts/worker.sh            the test
#   scripts/worker.sh measure    sizes and times; PSN_WHOLE names a release psn to compare with, of the same plugins
# PSN_WORKER names a worker that is built already; PSN_WORKER_PROFILE=dev builds a larger one in a tenth of the time, the same otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."

[[ $(uname -sm) == 'Linux x86_64' ]] || {
    echo "the worker runs on linux-x64" >&2
    exit 3
}
if [[ -z ${PSN_WORKER-} ]]; then
    # Apart from the workspace's build: together with psn it would get psn's compiler.
    profile=${PSN_WORKER_PROFILE:-worker}
    cargo build --profile "$profile" --package psn-worker
    [[ $profile != dev ]] || profile=debug
    PSN_WORKER=$(realpath "${CARGO_TARGET_DIR:-target}/$profile/psn-worker")
fi
export PSN_WORKER
test=the_worker_runs_what_was_compiled_for_it_and_nothing_else
[[ ${1-} == measure ]] && test=how_long_a_run_takes
exec cargo test --workspace --test worker -- --ignored --nocapture --exact "$test"
