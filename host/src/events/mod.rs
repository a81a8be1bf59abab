//! The event stream: what standard output carries, one JSON object a line, schema `psn.events/1`.
mod sink;
mod types;
pub(crate) mod vocabulary;

pub use sink::{EventSink, Output, Recorder, Sink, Unwritten, redact_value};
pub(crate) use sink::{line_of, steers};
pub use types::{Check, CheckStatus, Event, Level, Need, NextCommand, SCHEMA_NAME, StepEvent, StepStatus, Summary};
