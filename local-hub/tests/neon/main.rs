//! The Neon service over real HTTP, on real Postgres clusters. Every reply is held against Neon's own schema.
mod failures;
mod harness;
mod life;
mod lists;
mod objects;
mod resume;
mod schemas;
