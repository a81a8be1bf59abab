//! Turns due schedules into runs.
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::super::cron::Cron;
use super::super::model::Date;
use super::super::store::runs::{self, NewRun};
use super::super::store::schedules::{self, Schedule};

/// Schedules served in one go, so that the queue is looked at in between.
const BATCH: usize = 100;

/// Makes one run for each schedule that is due. Returns how many runs there are now.
pub(crate) async fn fire_due(db: &PgPool) -> Result<usize, sqlx::Error> {
    let mut fired = 0;
    for _ in 0..BATCH {
        let mut tx = db.begin().await?;
        let Some(schedule) = schedules::lock_due(&mut tx).await? else {
            break;
        };
        let now = schedules::now(&mut tx).await?;
        let tick = match Cron::parse(&schedule.cron, &schedule.timezone, "") {
            Ok(cron) => tick(&schedule, &cron, now),
            // Validated when it was stored. What can't be read any more (a zone that was abolished) must not stop the others.
            Err(error) => {
                tracing::warn!(schedule = %schedule.id, %error, "a schedule cannot be read and is switched off");
                Tick { run: None, next: None }
            }
        };
        let mut ran = None;
        if let Some((at, payload)) = tick.run {
            let new = NewRun {
                task: schedule.task.clone(),
                payload: packet(payload).to_string(),
                payload_type: "application/super+json".to_owned(),
                schedule_id: Some(schedule.id.clone()),
                scheduled_at: Some(at),
                ..NewRun::default()
            };
            let development = schedule.environment_kind == "DEVELOPMENT";
            runs::create_in(&mut tx, &schedule.environment_id, development, &new).await?;
            ran = Some(at);
            fired += 1;
        }
        // One transaction with the run: a crash neither loses a tick nor doubles it.
        schedules::advance(&mut tx, &schedule.id, ran, tick.next).await?;
        tx.commit().await?;
    }
    Ok(fired)
}

struct Tick {
    run: Option<(DateTime<Utc>, Value)>,
    next: Option<DateTime<Utc>>,
}

/// However many ticks were missed, there is one run, for the latest of them.
fn tick(schedule: &Schedule, cron: &Cron, now: DateTime<Utc>) -> Tick {
    let due = schedule.next_run_at.0;
    let at = cron.latest(now).filter(|latest| *latest > due).unwrap_or(due);
    let upcoming = cron.upcoming(at.max(now));
    let next = upcoming.first().copied();
    // The clock was set back: this tick had its run.
    if schedule.last_run_at.is_some_and(|last| last.0 >= at) {
        return Tick { run: None, next };
    }
    let mut payload = json!({
        "scheduleId": schedule.id,
        "type": schedule.kind,
        "timestamp": Date(at),
        "timezone": schedule.timezone,
        "upcoming": upcoming.iter().map(|t| Date(*t)).collect::<Vec<_>>(),
    });
    if let Some(last) = schedule.last_run_at {
        payload["lastTimestamp"] = json!(last);
    }
    if let Some(external_id) = &schedule.external_id {
        payload["externalId"] = json!(external_id);
    }
    Tick { run: Some((at, payload)), next }
}

/// With notes on which of its texts are dates, in super-JSON's form: a task of the vendor's SDK gets `Date`s.
fn packet(payload: Value) -> Value {
    let mut dates = serde_json::Map::new();
    for name in ["timestamp", "lastTimestamp"].into_iter().filter(|name| payload.get(*name).is_some()) {
        dates.insert(name.to_owned(), json!(["Date"]));
    }
    for at in 0..payload["upcoming"].as_array().map_or(0, Vec::len) {
        dates.insert(format!("upcoming.{at}"), json!(["Date"]));
    }
    json!({ "json": payload, "meta": { "values": dates } })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).unwrap().with_timezone(&Utc)
    }

    fn schedule(next: &str, last: Option<&str>) -> Schedule {
        Schedule {
            id: "sched_1".to_owned(),
            environment_id: "c1".to_owned(),
            environment_kind: "PRODUCTION".to_owned(),
            kind: "DECLARATIVE".to_owned(),
            task: "watchdog".to_owned(),
            cron: "*/15 * * * *".to_owned(),
            description: String::new(),
            timezone: "UTC".to_owned(),
            deduplication_key: "k".to_owned(),
            user_key: false,
            external_id: None,
            active: true,
            next_run_at: Date(at(next)),
            last_run_at: last.map(|l| Date(at(l))),
        }
    }

    fn fire(schedule: &Schedule, now: &str) -> (Option<DateTime<Utc>>, Option<DateTime<Utc>>) {
        let tick = tick(schedule, &Cron::parse(&schedule.cron, "UTC", "").unwrap(), at(now));
        (tick.run.map(|(at, _)| at), tick.next)
    }

    #[test]
    fn a_tick_on_time() {
        let (ran, next) = fire(&schedule("2026-11-22T10:15:00Z", None), "2026-11-22T10:15:00.2Z");
        assert_eq!(ran, Some(at("2026-11-22T10:15:00Z")));
        assert_eq!(next, Some(at("2026-11-22T10:30:00Z")));
    }

    #[test]
    fn many_missed_ticks_make_one_run_for_the_latest() {
        let (ran, next) = fire(&schedule("2026-11-20T10:15:00Z", Some("2026-11-20T10:00:00Z")), "2026-11-22T10:20:00Z");
        assert_eq!(ran, Some(at("2026-11-22T10:15:00Z")));
        assert_eq!(next, Some(at("2026-11-22T10:30:00Z")));
    }

    #[test]
    fn a_tick_that_ran_is_not_run_again() {
        let (ran, next) = fire(&schedule("2026-11-22T10:15:00Z", Some("2026-11-22T10:15:00Z")), "2026-11-22T10:16:00Z");
        assert_eq!((ran, next), (None, Some(at("2026-11-22T10:30:00Z"))));
    }

    #[test]
    fn the_payload_is_the_vendors() {
        let schedule = schedule("2026-11-22T10:15:00Z", Some("2026-11-22T10:00:00Z"));
        let tick = tick(&schedule, &Cron::parse("*/15 * * * *", "UTC", "").unwrap(), at("2026-11-22T10:15:01Z"));
        let (_, payload) = tick.run.unwrap();
        assert_eq!(payload["timestamp"], "2026-11-22T10:15:00.000Z");
        assert_eq!(payload["lastTimestamp"], "2026-11-22T10:00:00.000Z");
        assert_eq!(payload["upcoming"].as_array().unwrap().len(), 10);
        assert_eq!(payload["upcoming"][0], "2026-11-22T10:30:00.000Z");
        assert!(payload.get("externalId").is_none());
        let packet = packet(payload.clone());
        assert_eq!(packet["json"], payload);
        let dates: Vec<&str> = packet["meta"]["values"].as_object().unwrap().keys().map(String::as_str).collect();
        assert!(
            ["timestamp", "lastTimestamp", "upcoming.0", "upcoming.9"].iter().all(|d| dates.contains(d)),
            "{dates:?}"
        );
        assert_eq!(dates.len(), 12);
    }
}
