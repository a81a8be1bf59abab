//! The event stream: what standard output carries, one JSON object a line, schema `psn.events/1`.
mod sink;
mod types;
pub(crate) mod vocabulary;

#[cfg(feature = "full")]
pub(crate) use sink::line_of;
pub(crate) use sink::steers;
pub use sink::{EventSink, Output, Recorder, Sink, Unwritten, redact_value};
pub use types::{Check, CheckStatus, Event, Level, Need, NextCommand, SCHEMA_NAME, StepEvent, StepStatus, Summary};
