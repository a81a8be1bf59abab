#!/usr/bin/env bash
# Lints the migrations with other people's linters, pinned: squawk on the files, pgrls on a database that they were applied to.
# Both are installed into target/sql-lint. Exit code 3: there is no pip to install them with.
#
#   scripts/sql-lint.sh            psn's migrations, on a local hub of its own
#   DATABASE_URL=… scripts/sql-lint.sh   the same, on a database that is migrated already
set -euo pipefail
cd "$(dirname "$0")/.."

squawk=squawk-cli==2.70.0
pgrls=pgrls==0.57.1
venv=${CARGO_TARGET_DIR:-target}/sql-lint

if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
    echo 'squawk and pgrls are installed with pip, and there is no python3 with venv here' >&2
    exit 3
fi
if ! [[ -f $venv/.installed && $(<"$venv/.installed") == "$squawk $pgrls" ]]; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "$squawk" "$pgrls" >&2
    echo "$squawk $pgrls" >"$venv/.installed"
fi

# What is left out, and why, stands beside the same list in host/src/hub/lint/external.rs: psn's session sets both time-outs, a counter
# of attempts stays small, and a migration runs once, in a transaction.
scaffold=$venv/scaffold.sql
sed 's/{table}/sql_lint_example/g' host/src/hub/table.sql >"$scaffold"
"$venv/bin/squawk" --assume-in-transaction --pg-version 15 \
    --exclude require-lock-timeout,require-statement-timeout,prefer-bigint-over-int,prefer-robust-stmts \
    migrations/*.sql "$scaffold"

if [[ -z ${DATABASE_URL-} ]]; then
    work=$(mktemp -d "${TMPDIR:-/tmp}/psn-lint.XXXXXX")
    # As root, psn runs Postgres under another account, which must be able to pass through.
    chmod 0711 "$work"
    mkdir "$work/project"
    export PSN_HOME=$work/home
    trap 'cargo psn local down >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
    psn() { cargo psn --project "$work/project" "$@" >"$work/events" || { tail -n 3 "$work/events" >&2; exit 1; }; }
    psn run setup
    # A table as a person would add one.
    psn db new sql_lint_example
    psn db migrate
    DATABASE_URL=$(sed -n "s/^DATABASE_URL_DIRECT=//p" "$work/project/config/hub.env" | tr -d "'\"")
    export PGSSLROOTCERT=$PSN_HOME/local-hub/tls/ca.pem
fi
export DATABASE_URL
"$venv/bin/pgrls" lint --config scripts/pgrls.toml --fail-on warning
