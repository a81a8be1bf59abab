#!/usr/bin/env bash
# Writes docs/events.schema.json anew, from the types. With --check: only says whether it is up to date.
set -euo pipefail
cd "$(dirname "$0")/.."
fresh=$(mktemp)
trap 'rm -f "$fresh"' EXIT
cargo psn schema >"$fresh"
if [[ ${1-} == --check ]]; then
    diff -u docs/events.schema.json "$fresh" || {
        echo "docs/events.schema.json is not what the types say; write it anew: scripts/schema.sh" >&2
        exit 1
    }
else
    cp "$fresh" docs/events.schema.json
fi
