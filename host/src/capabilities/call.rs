//! What every host call of one component call shares: its deadline, its meter, and where its words go.
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use wasmtime::component::{HasData, ResourceTable};

use crate::events::EventSink;
use crate::redact::Redactor;

/// When everything that belongs to one component call must have ended: waiting, compilation, the guest and host calls in flight.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: Instant,
}

impl Deadline {
    pub fn after(limit: Duration) -> Self {
        Self { at: Instant::now() + limit }
    }

    pub fn at(self) -> Instant {
        self.at
    }

    /// Zero once it has passed.
    pub fn remaining(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    pub fn passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// A host call's own limit, or what is left if that is less.
    pub fn clamp(self, limit: Duration) -> Duration {
        limit.min(self.remaining())
    }
}

/// What one component call used. Reported also when it failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Usage {
    pub ms: u64,
    /// Bytes of linear memory at the highest point.
    pub memory_peak: u64,
    pub http_calls: u64,
    pub http_bytes_out: u64,
    pub http_bytes_in: u64,
    pub db_calls: u64,
    pub db_rows: u64,
    pub tool_calls: u64,
    pub log_bytes: u64,
    /// All host calls together.
    pub host_calls: u64,
}

/// The most that one component call may use.
#[derive(Clone, Debug)]
pub struct MeterLimits {
    pub http_calls: u64,
    pub http_bytes_out: u64,
    pub http_bytes_in: u64,
    pub db_calls: u64,
    pub db_rows: u64,
    pub tool_calls: u64,
    pub log_bytes: u64,
    pub host_calls: u64,
}

impl Default for MeterLimits {
    fn default() -> Self {
        Self {
            // Setup's busiest step makes about 40; the watchdog about 100 a tick.
            http_calls: 1_000,
            // A connection string or a deployment's metadata is a few KiB.
            http_bytes_out: 16 << 20,
            http_bytes_in: 64 << 20,
            db_calls: 10_000,
            db_rows: 1_000_000,
            tool_calls: 100,
            // Beyond this a log is not read by anyone.
            log_bytes: 1 << 20,
            // A guest that calls more often than this in one run is looping.
            host_calls: 1_000_000,
        }
    }
}

/// Which limit was reached. Traps the guest: a call that has used up its budget has no further use.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the call's limit of {limit} {what} was reached")]
pub struct Exceeded {
    /// In the manifest's words, for example `http-calls`.
    pub what: &'static str,
    pub limit: u64,
}

/// Counts, and says when it is enough.
#[derive(Clone, Debug)]
pub struct Meter {
    limits: MeterLimits,
    usage: Usage,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident => $field:ident, $what:literal;)*) => {$(
        $(#[$doc])*
        pub fn $name(&mut self, n: u64) -> Result<(), Exceeded> {
            let total = self.usage.$field.saturating_add(n);
            if total > self.limits.$field {
                return Err(Exceeded { what: $what, limit: self.limits.$field });
            }
            self.usage.$field = total;
            Ok(())
        }
    )*};
}

impl Meter {
    pub fn new(limits: MeterLimits) -> Self {
        Self { limits, usage: Usage::default() }
    }

    counters! {
        http_call => http_calls, "http-calls";
        http_out => http_bytes_out, "http-bytes-out";
        http_in => http_bytes_in, "http-bytes-in";
        db_call => db_calls, "db-calls";
        db_rows => db_rows, "db-rows";
        tool_call => tool_calls, "tool-calls";
        log => log_bytes, "log-bytes";
        /// Every host call counts here too, whatever it is.
        host_call => host_calls, "host-calls";
    }

    pub fn memory_peak(&mut self, bytes: u64) {
        self.usage.memory_peak = self.usage.memory_peak.max(bytes);
    }

    /// How much may still come in over HTTP.
    pub fn http_in_left(&self) -> u64 {
        self.limits.http_bytes_in - self.usage.http_bytes_in
    }

    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    pub fn finish(&mut self, elapsed: Duration) -> Usage {
        self.usage.ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        self.usage.clone()
    }
}

/// One call of one component: who, until when, how much, and where its words go.
pub struct Call {
    /// The plugin's name.
    pub plugin: Arc<str>,
    pub run_id: Arc<str>,
    /// Counted from 1.
    pub attempt: u32,
    pub deadline: Deadline,
    pub meter: Meter,
    pub redactor: Arc<Redactor>,
    pub events: EventSink,
    /// Names of secrets whose values were on their way to the guest and were replaced. Reported as a warning with the result.
    pub leaks: Vec<String>,
    /// Whether a database transaction is open: no HTTP call is made meanwhile.
    pub transaction_open: bool,
}

/// A capability as the host functions see it: its own state, the call it serves, and the table of handed-out resources.
pub struct View<'a, C> {
    pub cap: &'a mut C,
    pub call: &'a mut Call,
    pub table: &'a mut ResourceTable,
}

/// Tells wasmtime that an interface is implemented on a [`View`] of `C`.
pub struct Has<C>(PhantomData<C>);

impl<C: 'static> HasData for Has<C> {
    type Data<'a> = View<'a, C>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_counts_up_to_its_limit_and_not_beyond() {
        let mut m = Meter::new(MeterLimits { http_calls: 2, ..MeterLimits::default() });
        m.http_call(1).unwrap();
        m.http_call(1).unwrap();
        assert_eq!(m.http_call(1), Err(Exceeded { what: "http-calls", limit: 2 }));
        assert_eq!(m.usage().http_calls, 2);
        assert!(m.http_in(u64::MAX).is_err());
    }

    #[test]
    fn a_deadline_clamps() {
        let d = Deadline::after(Duration::from_secs(100));
        assert_eq!(d.clamp(Duration::from_secs(1)), Duration::from_secs(1));
        assert!(d.clamp(Duration::from_secs(1000)) <= Duration::from_secs(100));
        assert!(Deadline::after(Duration::ZERO).passed());
    }
}
