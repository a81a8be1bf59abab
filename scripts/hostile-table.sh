#!/bin/sh
# Writes the table of the hostile suite into docs/security.md. A test fails while it is not what the suite says.
set -eu
cd "$(dirname "$0")/.."
exec cargo run --quiet --package psn-hostile --example table
