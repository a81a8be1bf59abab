#!/usr/bin/env bash
# The watchdog over one database under the local hub's engine and under the vendor's `trigger dev` with node and with bun; prints
# what each reported and left, side by side, and fails where they differ. Before it, what `trigger dev` does with the local hub at all.
set -euo pipefail
cd "$(dirname "$0")/.."
export PSN_PARITY=full PSN_REQUIRE_CLIENTS=1
cargo test --workspace --test trigger -- dev:: --nocapture
exec cargo test --workspace --test parity -- --nocapture
