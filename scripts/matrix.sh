#!/usr/bin/env bash
# The matrices of setup, in full: every point at which psn can be killed, and every call spoilt in every way.
#
#   scripts/matrix.sh crash|fault [SEED]
#
#   PSN_MATRIX_WORKERS   local hubs at once [2]
#   PSN_MATRIX           how many cases, spread over all kinds [full]
set -euo pipefail
cd "$(dirname "$0")/.."

case ${1-} in
    crash) test=killed_anywhere_and_run_again_there_is_one_hub ;;
    fault) test=whatever_a_call_comes_to_psn_gets_over_it_or_says_how ;;
    *)
        sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
esac
export PSN_MATRIX=${PSN_MATRIX-full}
# Thousands of runs of psn: optimised a little, checks and all, they cost half.
export CARGO_PROFILE_DEV_OPT_LEVEL=${CARGO_PROFILE_DEV_OPT_LEVEL-1}
[[ -z ${2-} ]] || export PSN_MATRIX_SEED=$2
exec cargo test --workspace --test "$1_matrix" -- --nocapture --exact "$test"
