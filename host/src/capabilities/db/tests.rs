//! The policy as a table, and the whole capability against a real server.
mod policy;
mod postgres;
