//! Durations and delays as callers write them.
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};

/// Longer strings are refused unread.
const MAX_LEN: usize = 100;

/// `10m`, `1h30m`, `2d`, `1w`; units may come in any order, `hr` is `h`. `None` for anything else.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    if text.is_empty() || text.len() > MAX_LEN {
        return None;
    }
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|n| *n > 0)?;
        let amount: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, seconds) = [("w", 604_800), ("d", 86_400), ("hr", 3_600), ("h", 3_600), ("m", 60), ("s", 1)]
            .into_iter()
            .find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        total = total.checked_add(amount.checked_mul(seconds)?)?;
    }
    // A century: dates stay inside what Postgres and chrono can both say.
    (total <= 3_155_760_000).then(|| Duration::from_secs(total))
}

/// A point in time: an ISO 8601 date or a duration from `now`. `None` when it is neither or not in the future, which for a trigger
/// means "now", as at the vendor.
pub(crate) fn delay(text: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    match date(text) {
        Some(at) => (at > now).then_some(at),
        None => now.checked_add_signed(chrono::Duration::from_std(parse(text)?).ok()?),
    }
}

pub(crate) fn date(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Some(at.with_timezone(&Utc));
    }
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    Some(day.and_hms_opt(0, 0, 0)?.and_utc())
}

/// How long an idempotency key lives: one number and one unit, `s`, `m`, `h` or `d`. Anything else falls back to the default, as at
/// the vendor.
pub(crate) fn key_ttl(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) || !["s", "m", "h", "d"].contains(&unit) {
        return None;
    }
    parse(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [
            ("10s", Some(10)),
            ("10m", Some(600)),
            ("1h30m", Some(5_400)),
            ("30m1h", Some(5_400)),
            ("2hr", Some(7_200)),
            ("2d", Some(172_800)),
            ("1w", Some(604_800)),
            ("0s", Some(0)),
            ("", None),
            ("m", None),
            ("10", None),
            ("10 m", None),
            ("-10m", None),
            ("10y", None),
            ("1.5h", None),
            ("99999999999999999999s", None),
            ("9999999999999w", None),
        ] {
            assert_eq!(parse(text), seconds.map(Duration::from_secs), "{text:?}");
        }
    }

    #[test]
    fn delays_in_the_past_mean_now() {
        let now = DateTime::parse_from_rfc3339("2026-11-22T12:00:00Z").unwrap().with_timezone(&Utc);
        assert_eq!(delay("2026-11-22T11:59:59Z", now), None);
        assert_eq!(delay("2026-11-22T13:00:00+00:30", now).unwrap().to_rfc3339(), "2026-11-22T12:30:00+00:00");
        assert_eq!(delay("2026-11-23", now).unwrap().to_rfc3339(), "2026-11-23T00:00:00+00:00");
        assert_eq!(delay("10m", now).unwrap().to_rfc3339(), "2026-11-22T12:10:00+00:00");
        assert_eq!(delay("soon", now), None);
    }

    #[test]
    fn key_ttls_take_one_unit() {
        assert_eq!(key_ttl("60s"), Some(Duration::from_secs(60)));
        assert_eq!(key_ttl("1h30m"), None);
        assert_eq!(key_ttl("1w"), None);
        assert_eq!(key_ttl(""), None);
        assert_eq!(key_ttl("é"), None);
    }
}
