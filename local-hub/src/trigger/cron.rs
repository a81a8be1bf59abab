//! Cron expressions in time zones.
use std::str::FromStr;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::parser::{CronParser, Seconds, Year};

/// How many later ticks the payload of a scheduled run names.
pub(crate) const UPCOMING: usize = 10;

#[derive(Debug, thiserror::Error)]
pub(crate) enum CronError {
    #[error("Invalid cron expression: {0}")]
    Expression(String),
    #[error("Invalid IANA timezone: '{0}'. View the list of valid timezones at {1}/timezones")]
    Timezone(String, String),
}

/// A valid expression in a valid time zone that fires at least once more.
#[derive(Clone)]
pub(crate) struct Cron {
    cron: croner::Cron,
    zone: Tz,
}

impl Cron {
    /// Five fields, as the vendor takes them: no seconds, no year. `origin` is only for the error's text.
    pub(crate) fn parse(expression: &str, timezone: &str, origin: &str) -> Result<Self, CronError> {
        let zone = Tz::from_str(timezone).map_err(|_| CronError::Timezone(timezone.to_owned(), origin.to_owned()))?;
        let cron = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build()
            .parse(expression)
            .map_err(|e| CronError::Expression(e.to_string()))?;
        Ok(Self { cron, zone })
    }

    /// The first tick after `time`; `None` when there is none (30 February).
    pub(crate) fn next_after(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let next = self.cron.find_next_occurrence(&time.with_timezone(&self.zone), false).ok()?;
        Some(next.with_timezone(&Utc))
    }

    /// The last tick up to and including `time`.
    pub(crate) fn latest(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let latest = self.cron.find_previous_occurrence(&time.with_timezone(&self.zone), true).ok()?;
        Some(latest.with_timezone(&Utc))
    }

    pub(crate) fn upcoming(&self, after: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        std::iter::successors(self.next_after(after), |t| self.next_after(*t)).take(UPCOMING).collect()
    }

    /// In English, for people.
    pub(crate) fn describe(&self) -> String {
        self.cron.describe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).unwrap().with_timezone(&Utc)
    }

    #[test]
    fn ticks_follow_the_zones_wall_clock() {
        for (cron, zone, after, next) in [
            ("*/15 * * * *", "UTC", "2026-11-22T10:00:00Z", "2026-11-22T10:15:00Z"),
            ("0 9 * * *", "America/New_York", "2026-11-22T12:00:00Z", "2026-11-22T14:00:00Z"),
            // The night the clocks go back in New York: nine in the morning is an hour later in UTC.
            ("0 9 * * *", "America/New_York", "2026-10-31T14:00:00Z", "2026-11-01T14:00:00Z"),
            ("0 9 * * *", "America/New_York", "2026-10-30T14:00:00Z", "2026-10-31T13:00:00Z"),
            ("0 0 29 2 *", "UTC", "2026-11-22T10:00:00Z", "2028-02-29T00:00:00Z"),
        ] {
            let cron = Cron::parse(cron, zone, "").unwrap();
            assert_eq!(cron.next_after(at(after)), Some(at(next)), "{zone} after {after}");
        }
    }

    #[test]
    fn the_latest_tick_includes_the_moment_itself() {
        let cron = Cron::parse("*/15 * * * *", "UTC", "").unwrap();
        assert_eq!(cron.latest(at("2026-11-22T10:15:00Z")), Some(at("2026-11-22T10:15:00Z")));
        assert_eq!(cron.latest(at("2026-11-22T10:29:59Z")), Some(at("2026-11-22T10:15:00Z")));
    }

    #[test]
    fn upcoming_ticks_are_ten_and_in_order() {
        let cron = Cron::parse("0 * * * *", "UTC", "").unwrap();
        let ticks = cron.upcoming(at("2026-11-22T10:00:00Z"));
        assert_eq!(ticks.len(), UPCOMING);
        assert_eq!(ticks[0], at("2026-11-22T11:00:00Z"));
        assert!(ticks.windows(2).all(|w| w[1] - w[0] == chrono::Duration::hours(1)));
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        for (cron, zone) in [("* * * * * *", "UTC"), ("61 * * * *", "UTC"), ("often", "UTC"), ("", "UTC")] {
            assert!(matches!(Cron::parse(cron, zone, ""), Err(CronError::Expression(_))), "{cron:?}");
        }
        let error = Cron::parse("* * * * *", "Mars/Olympus", "http://127.0.0.1:1").err().unwrap();
        assert_eq!(
            error.to_string(),
            "Invalid IANA timezone: 'Mars/Olympus'. View the list of valid timezones at http://127.0.0.1:1/timezones"
        );
        assert_eq!(
            Cron::parse("0 0 30 2 *", "UTC", "").ok().and_then(|c| c.next_after(at("2026-11-22T10:00:00Z"))),
            None
        );
    }
}
