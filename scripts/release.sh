#!/usr/bin/env bash
# Builds psn with its worker inside: plugins once, the worker for linux-x64 with them, then psn. Prints what it made, with digests.
# PSN_WORKER_FILE names a worker that was built already, of the same source and plugins: for a release on another platform.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}

cargo run --package psn-plugin-build --bin build-plugins >&2
# Both must know the same components as psn's own.
export PSN_PLUGINS_DIR=$PWD/plugins/dist
if [[ -z ${PSN_WORKER_FILE-} ]]; then
    [[ $(uname -sm) == 'Linux x86_64' ]] || {
        echo "the worker is for linux-x64: build it there, and name it in PSN_WORKER_FILE" >&2
        exit 1
    }
    cargo build --profile worker --package psn-worker >&2
    PSN_WORKER_FILE=$(realpath "$target/worker/psn-worker")
fi
export PSN_WORKER_FILE
cargo build --release --package psn >&2
# What it deploys is what was built.
empty=$(mktemp -d)
trap 'rm -rf "$empty"' EXIT
mkdir "$empty/config"
PSN_HOME=$empty/home "$target/release/psn" --project "$empty" task export "$empty/tasks" >/dev/null
cmp "$empty/tasks/bin/psn" "$PSN_WORKER_FILE"
sha256sum "$target/release/psn" "$PSN_WORKER_FILE"
