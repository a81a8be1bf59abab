#!/usr/bin/env bash
# Builds the plugins and examples with cargo-component, for those who use it, and has psn check each component. Where the tool is
# absent it says so and succeeds: psn itself does not need it.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo component --version >/dev/null 2>&1; then
    echo "SKIPPED: cargo-component is not installed (cargo install --locked cargo-component)"
    exit 0
fi

# A folder of its own: what cargo-component leaves there is not what the host's build embeds.
target=${CARGO_TARGET_DIR:-$PWD/target}/cargo-component
names=()
# A crate with a manifest of psn's is a component; one without is a library of several.
for manifest in plugins/*/plugin.toml examples/*/plugin.toml; do
    manifest=${manifest%plugin.toml}Cargo.toml
    names+=("$(sed -n 's/^name = "\(.*\)"$/\1/p;T;q' "$manifest")")
done

CARGO_TARGET_DIR=$target cargo component build --locked --profile guest --target wasm32-unknown-unknown "${names[@]/#/--package=}"
for name in "${names[@]}"; do
    file=$target/wasm32-unknown-unknown/guest/${name//-/_}.wasm
    cargo psn plugin check "$file" >/dev/null
    echo "checked: $(basename "$file"), $(stat -c %s "$file") bytes"
done
