//! What one call may use up: the manifest's wishes, defaults where it has none, and the operator's ceilings over both.
use std::time::Duration;

use super::error::RuntimeError;
use crate::capabilities::MeterLimits;
use crate::plugins::manifest::{DEFAULT_MEMORY, Manifest, default_deadline, parse_bytes, parse_duration};

/// The most that any manifest may ask for. The operator's, not the plugin's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ceilings {
    /// Bytes.
    pub memory: u64,
    pub deadline: Duration,
    pub http_calls: u64,
    pub db_calls: u64,
    pub log_bytes: u64,
}

impl Default for Ceilings {
    fn default() -> Self {
        Self {
            // A quarter of the smallest machine that Trigger.dev offers for such work.
            memory: 512 << 20,
            // A deployment that builds an image takes some minutes.
            deadline: Duration::from_secs(15 * 60),
            http_calls: 10_000,
            db_calls: 100_000,
            log_bytes: 16 << 20,
        }
    }
}

/// What one call of a plugin may use up.
#[derive(Clone, Debug)]
pub struct CallLimits {
    /// Bytes of linear memory, all memories together.
    pub memory: u64,
    pub deadline: Duration,
    pub meter: MeterLimits,
}

impl CallLimits {
    pub fn of(manifest: &Manifest, ceilings: &Ceilings) -> Result<Self, RuntimeError> {
        let asked = &manifest.limits;
        let above = |field, asked: String, ceiling: String| RuntimeError::AboveCeiling { field, asked, ceiling };
        // Both parse: reading the manifest has tried.
        let memory = asked.memory.as_deref().and_then(parse_bytes).unwrap_or(DEFAULT_MEMORY.min(ceilings.memory));
        if memory > ceilings.memory {
            return Err(above("memory", format!("{memory} bytes"), format!("{} bytes", ceilings.memory)));
        }
        let max_duration = manifest.task.as_ref().and_then(|t| t.max_duration.as_deref());
        let default = default_deadline(manifest.world());
        let deadline = max_duration
            .or(asked.deadline.as_deref())
            .and_then(parse_duration)
            .unwrap_or(default.min(ceilings.deadline));
        if deadline > ceilings.deadline {
            return Err(above(
                "deadline",
                format!("{} s", deadline.as_secs()),
                format!("{} s", ceilings.deadline.as_secs()),
            ));
        }
        let defaults = MeterLimits::default();
        let counted = |field, asked: Option<u64>, default: u64, ceiling: u64| match asked {
            Some(n) if n > ceiling => Err(above(field, n.to_string(), ceiling.to_string())),
            Some(n) => Ok(n),
            None => Ok(default.min(ceiling)),
        };
        let meter = MeterLimits {
            http_calls: counted("http-calls", asked.http_calls, defaults.http_calls, ceilings.http_calls)?,
            db_calls: counted("db-calls", asked.db_calls, defaults.db_calls, ceilings.db_calls)?,
            log_bytes: counted("log-bytes", asked.log_bytes, defaults.log_bytes, ceilings.log_bytes)?,
            ..defaults
        };
        Ok(Self { memory, deadline, meter })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(world: &str, rest: &str, ceilings: &Ceilings) -> Result<CallLimits, RuntimeError> {
        let about = format!(
            "[plugin]\nname = \"x\"\nversion = \"0.1.0\"\nworld = \"psn:plugin/{world}@0.1.0\"\nsummary = \"s\"\n{rest}"
        );
        CallLimits::of(&Manifest::parse(about.as_bytes()).unwrap(), ceilings)
    }

    #[test]
    fn wishes_then_defaults_below_ceilings() {
        let c = Ceilings::default();
        let l = limits("step", "", &c).unwrap();
        assert_eq!(
            (l.memory, l.deadline, l.meter.http_calls),
            (DEFAULT_MEMORY, Duration::from_secs(120), MeterLimits::default().http_calls)
        );
        let l = limits("step", "[limits]\nmemory = \"1MiB\"\ndeadline = \"5m\"\nhttp-calls = 3\n", &c).unwrap();
        assert_eq!((l.memory, l.deadline, l.meter.http_calls), (1 << 20, Duration::from_secs(300), 3));
        let l = limits("task", "[task]\nmax-duration = \"90s\"\n", &c).unwrap();
        assert_eq!(l.deadline, Duration::from_secs(90));
        let low = Ceilings { memory: 1 << 20, deadline: Duration::from_secs(5), http_calls: 1, ..c };
        let l = limits("step", "", &low).unwrap();
        assert_eq!((l.memory, l.deadline, l.meter.http_calls), (1 << 20, Duration::from_secs(5), 1));
    }

    #[test]
    fn a_wish_above_its_ceiling_is_refused_by_name() {
        for (rest, name) in [
            ("memory = \"1GiB\"", "memory"),
            ("deadline = \"2h\"", "deadline"),
            ("http-calls = 10001", "http-calls"),
            ("db-calls = 100001", "db-calls"),
            ("log-bytes = 999999999", "log-bytes"),
        ] {
            let refused = limits("step", &format!("[limits]\n{rest}\n"), &Ceilings::default());
            assert!(matches!(refused, Err(RuntimeError::AboveCeiling { field, .. }) if field == name), "{rest}");
        }
    }
}
