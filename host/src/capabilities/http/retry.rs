//! When the host sends a request again, and how long it waits before.
use std::time::Duration;

use chrono::{DateTime, Utc};
use hyper::StatusCode;
use hyper::header::{HeaderMap, RETRY_AFTER};

/// Further tries after the first.
pub(super) const MAX_RETRIES: u32 = 3;

/// The wait before the first further try; doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// The longest that a service can make the host wait. A plugin that has more time asks again itself.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// Spread on top of what a service asks for, so that not all clients come back at once.
const SPREAD: Duration = Duration::from_millis(250);

/// Whether the service may well answer the same request otherwise soon.
pub(super) fn passing(status: StatusCode) -> bool {
    // 524: a gateway gave up waiting for the service.
    matches!(status.as_u16(), 429 | 502 | 503 | 504 | 524)
}

/// How long to wait before further try number `retry` (from 0): what the service says, else longer each time. None where it asks
/// for more than is worth waiting for. `chance` is from 0 to 1.
pub(super) fn wait(retry: u32, headers: Option<&HeaderMap>, now: DateTime<Utc>, chance: f64) -> Option<Duration> {
    if let Some(asked) = headers.and_then(|h| retry_after(h, now)) {
        return (asked <= MAX_WAIT).then(|| asked + SPREAD.mul_f64(chance));
    }
    let full = FIRST_WAIT * 2u32.saturating_pow(retry);
    Some(full.mul_f64(0.5 + chance / 2.0).min(MAX_WAIT))
}

/// Seconds or a date.
fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::<Utc>::from(httpdate::parse_http_date(value).ok()?);
    // A date that has passed means now.
    Some((date - now).to_std().unwrap_or_default())
}

/// From 0 to 1.
pub(super) fn chance() -> f64 {
    // Without randomness, clients meet again; nothing worse.
    getrandom::u32().map_or(0.5, |n| f64::from(n) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(retry: u32, retry_after: Option<&str>, chance: f64) -> Option<u128> {
        let mut headers = HeaderMap::new();
        if let Some(value) = retry_after {
            headers.insert(RETRY_AFTER, value.parse().unwrap());
        }
        let now = "2026-11-22T10:00:00Z".parse().unwrap();
        wait(retry, Some(&headers), now, chance).map(|d| d.as_millis())
    }

    #[test]
    fn the_service_says_how_long_to_wait() {
        assert_eq!(waits(0, Some("2"), 0.0), Some(2_000));
        assert_eq!(waits(0, Some("2"), 1.0), Some(2_250));
        assert_eq!(waits(0, Some("Sun, 22 Nov 2026 10:00:07 GMT"), 0.0), Some(7_000));
        assert_eq!(waits(0, Some("Sun, 22 Nov 2026 09:00:00 GMT"), 0.0), Some(0));
        // The two forms of old.
        assert_eq!(waits(0, Some("Sunday, 22-Nov-26 10:00:08 GMT"), 0.0), Some(8_000));
        assert_eq!(waits(0, Some("Sun Nov 22 10:00:09 2026"), 0.0), Some(9_000));
        assert_eq!(waits(0, Some("Fri, 31 Dec 9999 23:59:59 GMT"), 0.0), None);
        assert_eq!(waits(0, Some("3600"), 0.0), None, "longer than is worth waiting for");
        assert_eq!(waits(0, Some("18446744073709551615"), 0.0), None);
    }

    #[test]
    fn otherwise_each_wait_is_longer() {
        assert_eq!(waits(0, None, 1.0), Some(250));
        assert_eq!(waits(0, None, 0.0), Some(125));
        assert_eq!(waits(2, None, 1.0), Some(1_000));
        for unreadable in ["soon", "-1", "1.5", "Sun, 22 Nov 2026 10:00:07 +0200", ""] {
            assert_eq!(waits(1, Some(unreadable), 1.0), Some(500), "{unreadable}: what cannot be read does not count");
        }
        assert_eq!(waits(200, None, 1.0), Some(30_000));
    }

    #[test]
    fn chances_are_between_0_and_1() {
        assert!((0..100).map(|_| chance()).all(|c| (0.0..=1.0).contains(&c)));
    }
}
