#!/usr/bin/env bash
# The crash model in full: the table over at least 10,000 posts, each moment at which a tick can be killed, and 2,000 interleavings.
# CI runs a sample of the same with the tests.
set -euo pipefail
cd "$(dirname "$0")/.."
PSN_MODEL_STORIES="${PSN_MODEL_STORIES:-40}" PSN_MATRIX=full cargo test --workspace --test watchdog_model -- --nocapture --test-threads=1
