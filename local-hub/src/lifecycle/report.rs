//! What is there, what runs, and what the logs say.
use std::path::Path;

use chrono::{DateTime, NaiveDateTime, Utc};

use super::{ClusterStatus, Home, HubError, LogLine, State, Status, control};
use crate::files::{self, FileLock};
use crate::pg;

/// Bytes read from the end of each log: thousands of lines.
const TAIL: u64 = 512 << 10;

pub(super) async fn status(home: &Home) -> Status {
    let hub = control::healthy(home).await.ok().flatten();
    let there = home.recognise().unwrap_or(false);
    let held = || there && matches!(FileLock::try_acquire(&home.daemon_lock()), Ok(None));
    let state = match &hub {
        Some(_) => State::Running,
        None if held() => State::Unready,
        None if there => State::Stopped,
        None => State::Absent,
    };
    let clusters = pg::summaries(home.path())
        .into_iter()
        .map(|c| ClusterStatus {
            port: c.port.filter(|_| c.id != pg::CONTROL),
            pooler_port: c.pooler_port,
            id: c.id,
            major: c.major,
            running: c.running,
        })
        .collect();
    Status {
        home: home.path().to_owned(),
        state,
        started_at: hub.as_ref().map(|h| h.started_at),
        endpoints: hub.map(|h| h.endpoints),
        clusters,
        pooler: pg::pooler_version(),
        run_slots: crate::trigger::run_slots(),
    }
}

pub(super) fn logs(home: &Home, lines: usize) -> Result<Vec<LogLine>, HubError> {
    if !home.recognise()? {
        return Ok(Vec::new());
    }
    let mut all = read("hub", &home.hub_log(), lines)?;
    all.extend(read("requests", &home.request_log(), lines)?);
    for cluster in pg::summaries(home.path()) {
        all.extend(read(&format!("postgres/{}", cluster.id), &cluster.log, lines)?);
        all.extend(read(&format!("pgbouncer/{}", cluster.id), &cluster.pooler_log, lines)?);
    }
    // Stable: what one log says stays in its order.
    all.sort_by_key(|line| line.at);
    Ok(all.split_off(all.len().saturating_sub(lines)))
}

fn read(source: &str, path: &Path, lines: usize) -> Result<Vec<LogLine>, HubError> {
    let text = match files::tail(path, 0, TAIL) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(HubError::io("could not read", path)(e)),
    };
    let mut at = None;
    let mut read: Vec<LogLine> = text
        .lines()
        .map(|line| {
            // A line without a time belongs to the one before it.
            at = time_of(line).or(at);
            LogLine { source: source.to_owned(), at, text: line.to_owned() }
        })
        .collect();
    Ok(read.split_off(read.len().saturating_sub(lines)))
}

/// The time a line starts with: RFC 3339 (the daemon), `{"at":"…"` (requests), `2026-01-02 03:04:05.678 UTC` (Postgres).
fn time_of(line: &str) -> Option<DateTime<Utc>> {
    let line = line.strip_prefix("{\"at\":\"").unwrap_or(line);
    if let Some((stamp, _)) = line.split_once(" UTC ")
        && let Ok(time) = NaiveDateTime::parse_from_str(stamp, "%Y-%m-%d %H:%M:%S%.f")
    {
        return Some(time.and_utc());
    }
    let stamp = line.split([' ', '"']).next()?;
    DateTime::parse_from_rfc3339(stamp).ok().map(|t| t.to_utc())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn times_are_read_in_all_three_forms() {
        let want = DateTime::parse_from_rfc3339("2026-01-02T03:04:05.678Z").unwrap().to_utc();
        for line in [
            "2026-01-02T03:04:05.678Z  INFO ready",
            "{\"at\":\"2026-01-02T03:04:05.678Z\",\"service\":\"neon\"}",
            "2026-01-02 03:04:05.678 UTC [12] a@b LOG:  ready",
        ] {
            assert_eq!(time_of(line), Some(want), "{line}");
        }
        assert_eq!(time_of("  at main.rs:1"), None);
        assert_eq!(time_of(""), None);
    }

    #[test]
    fn logs_are_merged_by_time_and_cut_to_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().join("h"));
        assert!(logs(&home, 10).unwrap().is_empty());
        home.prepare().unwrap();
        fs::write(home.hub_log(), "2026-01-01T00:00:01Z one\n  more of one\n2026-01-01T00:00:03Z three\n").unwrap();
        fs::write(home.request_log(), "{\"at\":\"2026-01-01T00:00:02Z\",\"two\":2}\n").unwrap();
        let texts = |n| -> Vec<String> { logs(&home, n).unwrap().into_iter().map(|l| l.text).collect() };
        assert_eq!(
            texts(10),
            [
                "2026-01-01T00:00:01Z one",
                "  more of one",
                "{\"at\":\"2026-01-01T00:00:02Z\",\"two\":2}",
                "2026-01-01T00:00:03Z three"
            ]
        );
        assert_eq!(texts(1), ["2026-01-01T00:00:03Z three"]);
    }
}
