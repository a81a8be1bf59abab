//! The Neon service over real HTTP, on real Postgres clusters. Every reply is held against Neon's own schema.
mod failures;
mod faults;
mod harness;
mod keys;
mod life;
mod lists;
mod objects;
mod pooler;
mod resume;
mod schemas;
mod sql;
