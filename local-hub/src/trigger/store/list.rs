//! Lists of runs: filters, the default window, and pages cut by order of creation.
use chrono::{DateTime, Utc};
use sqlx::{PgPool, Postgres, QueryBuilder};

use super::super::status::RunStatus;
use super::runs::{Run, run_columns};

/// Without a filter on the time of creation only this much of the past is shown, as at the vendor. Callers that look further back
/// must say so.
pub(crate) const DEFAULT_WINDOW_SECONDS: f64 = 7.0 * 86_400.0;

#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) statuses: Option<Vec<RunStatus>>,
    pub(crate) tasks: Option<Vec<String>>,
    pub(crate) versions: Option<Vec<String>>,
    pub(crate) tags: Option<Vec<String>>,
    pub(crate) queues: Option<Vec<String>>,
    pub(crate) machines: Option<Vec<String>>,
    pub(crate) schedule: Option<String>,
    pub(crate) batch: Option<String>,
    pub(crate) is_test: Option<bool>,
    pub(crate) from: Option<DateTime<Utc>>,
    pub(crate) to: Option<DateTime<Utc>>,
    pub(crate) period_seconds: Option<f64>,
    /// A filter on something that no run here has: regions, bulk actions, error groups.
    pub(crate) nothing: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cursor {
    Start,
    After(String),
    Before(String),
}

#[derive(Debug)]
pub(crate) struct Page {
    /// Newest first.
    pub(crate) runs: Vec<Run>,
    pub(crate) next: Option<String>,
    pub(crate) previous: Option<String>,
}

/// `None` when the cursor names no run of the environment.
pub(crate) async fn runs(
    db: &PgPool,
    environment: &str,
    filter: &Filter,
    cursor: &Cursor,
    size: usize,
) -> Result<Option<Page>, sqlx::Error> {
    let at = match cursor {
        Cursor::Start => None,
        Cursor::After(id) | Cursor::Before(id) => {
            let seq: Option<i64> =
                sqlx::query_scalar("SELECT seq FROM trigger.runs WHERE environment_id = $1 AND id = $2")
                    .bind(environment)
                    .bind(id)
                    .fetch_optional(db)
                    .await?;
            if seq.is_none() {
                return Ok(None);
            }
            seq
        }
    };
    let backward = matches!(cursor, Cursor::Before(_));
    let mut query = QueryBuilder::new(run_columns!());
    query.push("WHERE r.environment_id = ").push_bind(environment);
    push_filter(&mut query, filter);
    if let Some(seq) = at {
        query.push(if backward { " AND r.seq > " } else { " AND r.seq < " }).push_bind(seq);
    }
    query.push(if backward { " ORDER BY r.seq ASC" } else { " ORDER BY r.seq DESC" });
    // One more than asked for tells whether there is another page.
    query.push(" LIMIT ").push_bind(i64::try_from(size).unwrap_or(i64::MAX).saturating_add(1));
    let mut runs: Vec<Run> = query.build_query_as().fetch_all(db).await?;
    let more = runs.len() > size;
    runs.truncate(size);
    if backward {
        runs.reverse();
    }
    let first = runs.first().map(|r| r.id.clone());
    let last = runs.last().map(|r| r.id.clone());
    let (next, previous) = match cursor {
        Cursor::Start => (last.filter(|_| more), None),
        Cursor::After(_) => (last.filter(|_| more), first),
        Cursor::Before(_) => (last, first.filter(|_| more)),
    };
    Ok(Some(Page { runs, next, previous }))
}

fn push_filter(query: &mut QueryBuilder<Postgres>, filter: &Filter) {
    if filter.nothing {
        query.push(" AND false");
    }
    if let Some(statuses) = &filter.statuses {
        let names: Vec<&'static str> = statuses.iter().map(|s| s.name()).collect();
        query.push(" AND r.status = ANY(").push_bind(names).push(")");
    }
    for (column, values) in [
        ("r.task", &filter.tasks),
        ("r.version", &filter.versions),
        ("r.queue", &filter.queues),
        ("coalesce(r.machine, 'small-1x')", &filter.machines),
    ] {
        if let Some(values) = values {
            query.push(" AND ").push(column).push(" = ANY(").push_bind(values.clone()).push(")");
        }
    }
    if let Some(tags) = &filter.tags {
        query.push(" AND r.tags && ").push_bind(tags.clone());
    }
    if let Some(schedule) = &filter.schedule {
        query.push(" AND r.schedule_id = ").push_bind(schedule.clone());
    }
    if let Some(batch) = &filter.batch {
        query.push(" AND r.batch_id = ").push_bind(batch.clone());
    }
    if let Some(is_test) = filter.is_test {
        query.push(" AND r.is_test = ").push_bind(is_test);
    }
    let period = match (filter.from, filter.to, filter.period_seconds) {
        (_, _, Some(seconds)) => Some(seconds),
        (None, None, None) => Some(DEFAULT_WINDOW_SECONDS),
        _ => None,
    };
    if let Some(seconds) = period {
        query.push(" AND r.created_at >= now() - make_interval(secs => ").push_bind(seconds).push(")");
    }
    if let Some(from) = filter.from {
        query.push(" AND r.created_at >= ").push_bind(from);
    }
    if let Some(to) = filter.to {
        query.push(" AND r.created_at <= ").push_bind(to);
    }
}
