#!/usr/bin/env bash
# Writes docs/row-level-security.md: what is tried on psn's own tables, and what must come of it.
set -euo pipefail
cd "$(dirname "$0")/.."
PSN_WRITE_DOCS=1 cargo test --workspace --test database -- --exact mutations::taking_anything_away_turns_verify_red
