//! Against servers: real ones of the local hub's, and listeners that behave like what stands in their way.
mod connection;
