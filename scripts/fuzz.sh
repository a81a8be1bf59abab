#!/usr/bin/env bash
# Fuzzes what reads foreign bytes, with cargo-fuzz on stable Rust: coverage by LLVM's own pass, without a sanitizer (psn has one
# `unsafe` module, which no target reaches; what is looked for is panics, hangs and broken invariants).
#
#   scripts/fuzz.sh                 5 s for each target, as CI does where the tools are
#   scripts/fuzz.sh 3600            an hour for each target
#   scripts/fuzz.sh 600 sql redact  ten minutes for these
#   PSN_FUZZ_SEED=1 scripts/fuzz.sh the same mutations each time: what CI runs must not depend on chance
#
# What is found stays in fuzz/artifacts, new inputs in fuzz/found; both are ignored by git. A finding is fixed with an input in
# fuzz/corpus, which every `cargo test` runs: host/src/invariants.rs.
#
# Skips, and says so, where cargo-fuzz is missing, unless PSN_CI_INSTALL_TOOLS=1. The first build compiles psn once more, instrumented.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-5}
shift || true
targets=("$@")
if [[ ${#targets[@]} -eq 0 ]]; then
    for file in fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi

if ! cargo fuzz --version >/dev/null 2>&1; then
    if [[ ${PSN_CI_INSTALL_TOOLS-} != 1 ]]; then
        echo 'SKIPPED: cargo-fuzz is not installed: cargo install --locked cargo-fuzz'
        exit 0
    fi
    cargo install --locked cargo-fuzz
fi

# The guests are built beforehand: the flags that instrument the host are not for them.
cargo run --quiet --package psn-plugin-build --bin build-plugins >/dev/null
export PSN_PLUGINS_DIR=$PWD/plugins/dist
export CARGO_INCREMENTAL=0
cargo fuzz build --sanitizer none

failed=()
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for target in "${targets[@]}"; do
    mkdir -p "fuzz/found/$target"
    echo "=== $target, $seconds s"
    # New inputs go to the first folder. 4 GiB, because the whole host is in there; a single input has 10 s.
    cargo fuzz run --sanitizer none "$target" "fuzz/found/$target" "fuzz/corpus/$target" -- \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=4096 -max_len=8192 -print_final_stats=1 -seed="${PSN_FUZZ_SEED:-0}" >"$log" 2>&1 ||
        failed+=("$target")
    grep -E 'stat::(number_of_executed_units|average_exec_per_sec|new_units_added|peak_rss_mb)|panicked|ERROR|SUMMARY|Test unit written' "$log" || true
done
[[ ${#failed[@]} -eq 0 ]] || { echo "FAILED: ${failed[*]}; the inputs are in fuzz/artifacts" >&2; exit 1; }
