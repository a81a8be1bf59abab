//! Times as they are typed, and the two clocks that they are read by.
use std::time::Duration;

use crate::error::CodedError;
use crate::pipeline::trigger_api::TriggerApi;

/// Clocks that differ by less are taken for the same: the time of a call, and whole seconds in what the other one says.
const SKEW: chrono::TimeDelta = chrono::TimeDelta::seconds(30);

/// Trigger.dev starts at once what it cannot read or what is past; a post that was to wait would be out.
pub(super) fn when(command: &str, text: &str) -> Result<(), CodedError> {
    let fix = [format!("psn task {command} --help")];
    match date(text) {
        Some(at) if at <= chrono::Utc::now() => {
            Err(CodedError::new("usage.delay", format!("`{text}` is past; without --delay a task starts at once"), fix))
        }
        Some(_) => Ok(()),
        None if duration(text).is_some_and(|d| !d.is_zero()) => Ok(()),
        None => Err(CodedError::new(
            "usage.delay",
            format!("`{text}` is no delay: it is 10m, 1h30m, 2d, or a date such as 2027-01-31T09:00:00Z"),
            fix,
        )),
    }
}

/// With a time zone: a date without one means another moment on another machine.
pub(super) fn date(text: &str) -> Option<chrono::DateTime<chrono::Utc>> {
    chrono::DateTime::parse_from_rfc3339(text).ok().map(|at| at.to_utc())
}

/// Numbers, each with s, m, h, d or w, as Trigger.dev reads them.
pub(super) fn duration(text: &str) -> Option<Duration> {
    const MOST: u64 = 3_155_760_000;
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|n| *n > 0)?;
        let amount: u64 = rest[..digits].parse().ok()?;
        let seconds = match rest.as_bytes()[digits] {
            b's' => 1,
            b'm' => 60,
            b'h' => 3_600,
            b'd' => 86_400,
            b'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(amount.checked_mul(seconds)?).filter(|t| *t <= MOST)?;
        rest = &rest[digits + 1..];
    }
    (!text.is_empty()).then(|| Duration::from_secs(total))
}

/// A date is read by Trigger.dev's clock; one that is past there would start the task at once, however far it is ahead here. `again`
/// is the command with a span in its place, which means the same on both.
pub(super) fn still_ahead(api: &TriggerApi, text: &str, again: impl Fn(&str) -> String) -> Result<(), CodedError> {
    let (Some(at), Some(ahead)) = (date(text), api.clock_ahead()) else { return Ok(()) };
    let now = chrono::Utc::now();
    if ahead < SKEW || at > now + ahead {
        return Ok(());
    }
    let span = format!("{}s", (at - now).num_seconds().max(1));
    Err(CodedError::new(
        "task.clock-skew",
        format!(
            "Trigger.dev's clock is {} s ahead of this machine's, and `{text}` is past there; nothing was changed",
            ahead.num_seconds()
        ),
        [again(&span), "psn doctor".to_owned()],
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, seconds) in
            [("10s", Some(10)), ("1h30m", Some(5_400)), ("2d", Some(172_800)), ("1w", Some(604_800)), ("0s", Some(0))]
        {
            assert_eq!(duration(text).map(|d| d.as_secs()), seconds, "{text}");
        }
        for bad in ["", "10", "m", "10x", "1h 30m", "-5m", "9999999999999999999h", "1é"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
        assert!(when("trigger", "10m").is_ok() && when("trigger", "2099-01-01T00:00:00Z").is_ok());
        for bad in ["0s", "tomorrow", "2001-01-01T00:00:00Z", "2099-01-01T00:00:00"] {
            assert_eq!(when("trigger", bad).unwrap_err().code, "usage.delay", "{bad}");
        }
    }
}
