#!/usr/bin/env bash
# Deploys psn's tasks to a local hub with the real trigger.dev CLI, once for each runtime named (default: bun-1.4 node-24).
# PSN_WORKER names psn's worker, to deploy that in psn's place.
# Exit code 3: this machine has no Node.js that can run it.
set -euo pipefail
cd "$(dirname "$0")/.."

# bun is among the clients: the local hub lists a bundle's tasks with it, as the vendor's builders do.
scripts/clients.sh || exit $?
bun=(tests/clients/node_modules/@oven/bun-*/bin/bun)
if [[ ! -x ${bun[0]} ]]; then
    echo "npm has no bun for this machine" >&2
    exit 3
fi
export PATH="$PWD/$(dirname "${bun[0]}"):$PATH"
export PSN_DEPLOY_RUNTIMES="${*:-bun-1.4 node-24}"
exec cargo test --workspace --test cloud_project -- --ignored --nocapture
