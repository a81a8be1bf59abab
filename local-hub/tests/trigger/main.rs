//! The Trigger.dev service over real HTTP and a real Postgres, with a double in place of what executes runs. Each reply is held
//! against the vendor's own schema.
mod batches;
mod bundles;
mod clients;
mod deploys;
mod dev;
mod engine;
mod idempotency;
mod limits;
mod lists;
mod management;
mod runs;
mod schedules;
mod script;
mod support;
mod wire;
mod worker;
