# `just` lists the recipes. Each is one line over cargo or over a script in scripts/, so nothing here is needed to do the same by hand.

[private]
default:
    @just --list

# Builds the plugins and examples into plugins/dist/<name>.wasm, each with its manifest inside
build-plugins:
    cargo run --package psn-plugin-build --bin build-plugins

# Sets up a hub, in this folder unless --project names another
setup *args:
    cargo psn run setup {{ args }}

# All tests, with real components, a real Postgres and the vendors' real clients
test:
    cargo test --workspace

# The crash or the fault matrix of setup in full: `just matrix crash`
matrix which:
    scripts/matrix.sh {{ which }}

# Formatting and clippy, as CI runs them
lint:
    cargo fmt --all --check && cargo clippy --workspace --all-targets -- -D warnings

# Benchmarks of inner loops
bench *args:
    cargo bench --package psn-benches {{ args }}

# Sizes, times and memory of the whole program
measure *args:
    scripts/measure.sh {{ args }}

# Fuzzes what reads foreign bytes: 5 s a target, or as long as the first argument says
fuzz *args:
    scripts/fuzz.sh {{ args }}

# What the checks cost, as ratios
checks:
    cargo bench --package psn-benches --bench checks

# Builds the plugins with your cargo-component instead; says so and does nothing where it is not installed
cargo-component:
    scripts/cargo-component.sh

# The linters squawk and pgrls on psn's migrations
sql-lint:
    scripts/sql-lint.sh

# Installs the vendors' clients that tests/clients/ pins
clients:
    scripts/clients.sh

# Type-checks, lints and tests the Trigger.dev project of the tasks
trigger-project:
    scripts/trigger-project.sh

# Deploys the tasks to a local hub with the real trigger.dev CLI: `just deploy-test bun-1.4`
deploy-test *runtimes:
    scripts/deploy.sh {{ runtimes }}

# Writes the event stream's JSON Schema anew
schema:
    scripts/schema.sh

# Writes the table of the hostile suite anew
hostile-table:
    scripts/hostile-table.sh

# Licences, sources and advisories of the dependencies
deny:
    cargo deny --locked check

# Advisories only
audit:
    cargo audit

# Everything that CI runs
ci:
    .ci/run

# The local hub's run engine beside graphile-worker and pg-boss
bench-engine:
    benches/engine/run.sh

# The watchdog's crash model in full
watchdog-model:
    scripts/watchdog-model.sh

# The watchdog under the local engine, and under trigger dev with node and with bun, side by side
parity:
    scripts/parity.sh

# psn with its worker for the deployed tasks inside, as it is released
release:
    scripts/release.sh

# psn's worker, built as it is released, beside a whole psn; `just worker measure` for sizes and times
worker *args:
    scripts/worker.sh {{ args }}
