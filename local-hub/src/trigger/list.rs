//! The query of a list of runs.
use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::duration;
use super::error::ApiError;
use super::status::RunStatus;
use super::store::list::{Cursor, Filter};

/// The vendor's default and bounds.
const DEFAULT_PAGE: usize = 25;
const MAX_PAGE: usize = 100;
const MACHINES: [&str; 7] = ["micro", "small-1x", "small-2x", "medium-1x", "medium-2x", "large-1x", "large-2x"];

pub(crate) type Query = HashMap<String, String>;

#[derive(Debug)]
pub(crate) struct ListQuery {
    pub(crate) filter: Filter,
    pub(crate) cursor: Cursor,
    pub(crate) size: usize,
}

impl ListQuery {
    pub(crate) fn parse(query: &Query) -> Result<Self, ApiError> {
        let text = |name: &str| query.get(name).map(String::as_str).filter(|v| !v.is_empty());
        let words = |name: &str| text(name).map(|v| v.split(',').map(str::to_owned).collect::<Vec<_>>());
        let size = match query.get("page[size]") {
            None => DEFAULT_PAGE,
            Some(size) => size
                .parse()
                .ok()
                .filter(|n| (1..=MAX_PAGE).contains(n))
                .ok_or_else(|| ApiError::query("page[size]", format!("Expected a number from 1 to {MAX_PAGE}")))?,
        };
        let cursor = match (text("page[before]"), text("page[after]")) {
            (Some(before), _) => Cursor::Before(before.to_owned()),
            (None, Some(after)) => Cursor::After(after.to_owned()),
            (None, None) => Cursor::Start,
        };
        let is_test = match text("filter[isTest]") {
            None => None,
            Some("true") => Some(true),
            Some("false") => Some(false),
            Some(other) => {
                return Err(ApiError::query("filter[isTest]", format!("Invalid value for isTest: {other}")));
            }
        };
        let machines = words("filter[machine]");
        if let Some(unknown) = machines.iter().flatten().find(|m| !MACHINES.contains(&m.as_str())) {
            return Err(ApiError::query("filter[machine]", format!("Invalid machine values: {unknown}")));
        }
        let filter = Filter {
            statuses: text("filter[status]").map(statuses).transpose()?,
            tasks: words("filter[taskIdentifier]"),
            versions: words("filter[version]"),
            tags: words("filter[tag]"),
            queues: words("filter[queue]"),
            machines,
            schedule: text("filter[schedule]").map(str::to_owned),
            batch: text("filter[batch]").map(str::to_owned),
            is_test,
            from: time(query, "filter[createdAt][from]")?,
            to: time(query, "filter[createdAt][to]")?,
            // A period that cannot be read counts as none, as at the vendor.
            period_seconds: text("filter[createdAt][period]").and_then(duration::parse).map(|d| d.as_secs_f64()),
            nothing: ["filter[region]", "filter[bulkAction]", "filter[error]"]
                .into_iter()
                .any(|name| text(name).is_some()),
        };
        Ok(Self { filter, cursor, size })
    }
}

fn statuses(text: &str) -> Result<Vec<RunStatus>, ApiError> {
    let mut statuses = Vec::new();
    let mut invalid = Vec::new();
    for name in text.split(',') {
        match RunStatus::from_filter(name) {
            Some(found) => statuses.extend_from_slice(found),
            None => invalid.push(name),
        }
    }
    if invalid.is_empty() {
        return Ok(statuses);
    }
    Err(ApiError::query("filter[status]", format!("Invalid status values: {}", invalid.join(", "))))
}

/// Milliseconds since 1970, or an ISO 8601 date.
fn time(query: &Query, name: &str) -> Result<Option<DateTime<Utc>>, ApiError> {
    let Some(text) = query.get(name).filter(|v| !v.is_empty()) else {
        return Ok(None);
    };
    let parsed = match text.parse::<i64>() {
        Ok(millis) => DateTime::from_timestamp_millis(millis),
        Err(_) => duration::date(text),
    };
    parsed.map(Some).ok_or_else(|| ApiError::query(name, "Invalid date"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<ListQuery, ApiError> {
        ListQuery::parse(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn queries_are_read() {
        let query = parse(&[
            ("filter[status]", "QUEUED,EXECUTING,REATTEMPTING,FROZEN"),
            ("filter[tag]", "post:1,user:2"),
            ("filter[createdAt][from]", "1795381571537"),
            ("filter[createdAt][to]", "2026-11-22T22:06:09.410Z"),
            ("page[size]", "100"),
            ("page[after]", "run_1"),
        ])
        .unwrap();
        let expected = [RunStatus::Pending, RunStatus::Executing, RunStatus::RetryingAfterFailure];
        assert_eq!(query.filter.statuses.as_deref(), Some(&expected[..]));
        assert_eq!(query.filter.tags.as_deref().map(<[String]>::len), Some(2));
        assert_eq!(query.filter.from.unwrap().timestamp_millis(), 1_795_381_571_537);
        assert_eq!((query.size, query.cursor), (100, Cursor::After("run_1".to_owned())));
    }

    #[test]
    fn wrong_queries_are_refused_by_name() {
        for (name, value) in [
            ("filter[status]", "QUEUED,DONE"),
            ("filter[isTest]", "yes"),
            ("filter[machine]", "huge"),
            ("filter[createdAt][from]", "yesterday"),
            ("page[size]", "0"),
            ("page[size]", "101"),
            ("page[size]", "ten"),
        ] {
            match parse(&[(name, value)]) {
                Err(ApiError::Query { param, .. }) => assert_eq!(param, name),
                other => panic!("{name}={value}: {other:?}"),
            }
        }
    }

    #[test]
    fn without_a_window_there_is_no_explicit_one() {
        let filter = parse(&[]).unwrap().filter;
        assert!(filter.from.is_none() && filter.to.is_none() && filter.period_seconds.is_none());
        assert_eq!(parse(&[("filter[createdAt][period]", "30d")]).unwrap().filter.period_seconds, Some(2_592_000.0));
    }
}
