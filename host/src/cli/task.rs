//! `psn task`: the runs of the hub's tasks, on either hub through Trigger.dev's API.
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::args::CloudRun;
use super::run::distance;
use super::{Context, Done};
use crate::error::CodedError;
use crate::events::Event;
use crate::pipeline::cloud_run;
use crate::pipeline::facts;
use crate::pipeline::session::find_project;
use crate::pipeline::trigger_api::{ApiError, TriggerApi};

/// What a result event of these commands is named after.
pub(super) const COMMAND: &str = "task ";
/// Trigger.dev takes 3 MB; the rest is for what surrounds a payload.
const MAX_PAYLOAD: u64 = 3 * 1024 * 1024;
/// Trigger.dev's own limits.
const MAX_TAGS: usize = 10;
const MAX_TAG_CHARS: usize = 128;
const MAX_KEY_CHARS: usize = 2_048;
/// Between two looks at a run that is waited for.
const LOOK: Duration = Duration::from_millis(500);
/// The states in which a run goes on. Trigger.dev's own yes-and-no fields leave EXPIRED and TIMED_OUT out.
const OPEN: [&str; 6] = ["PENDING_VERSION", "DELAYED", "QUEUED", "DEQUEUED", "EXECUTING", "WAITING"];
const STATUSES: [&str; 13] = [
    "PENDING_VERSION",
    "DELAYED",
    "QUEUED",
    "DEQUEUED",
    "EXECUTING",
    "WAITING",
    "COMPLETED",
    "CANCELED",
    "FAILED",
    "CRASHED",
    "SYSTEM_FAILURE",
    "EXPIRED",
    "TIMED_OUT",
];

#[derive(Subcommand)]
pub(super) enum Task {
    /// Starts a task, now or later
    Trigger(Trigger),
    /// Lists runs, the newest first; without a window, those of the last 7 days
    Runs(Runs),
    /// Shows one run
    Show {
        /// run_…
        run: String,
    },
    /// Cancels a run that has not ended
    Cancel { run: String },
    /// Runs again what a run was given, as a new run
    Replay { run: String },
    /// Puts a run that is still delayed to another time
    Reschedule {
        run: String,
        /// 10m, 1h30m, 2d, or a date such as 2027-01-31T09:00:00Z
        #[arg(long)]
        delay: String,
    },
    /// Writes the Trigger.dev project that setup deploys to the cloud, for a look at it, or to deploy it by hand
    Export {
        /// Made where it is not there; nothing but an earlier export is written over
        folder: PathBuf,
    },
}

#[derive(Args)]
pub(super) struct Trigger {
    /// The task's id, for example publish-post
    task: String,
    /// What it is given, as JSON; `-` reads standard input
    #[arg(long, value_name = "JSON", default_value = "{}")]
    payload: String,
    /// Starts it later: 10m, 1h30m, 2d, or a date such as 2027-01-31T09:00:00Z
    #[arg(long)]
    delay: Option<String>,
    /// A second trigger with the same key answers the first one's run
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// How long the key counts: one number and s, m, h or d [default: 30d]
    #[arg(long, value_name = "TIME", requires = "idempotency_key")]
    idempotency_key_ttl: Option<String>,
    /// Gives up when it has not started by then, for example 1h
    #[arg(long)]
    ttl: Option<String>,
    /// A word to find the run by; up to 10
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Waits this many seconds for the run to end, and fails if it does not end well
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
}

#[derive(Args)]
pub(super) struct Runs {
    /// Only runs in these states
    #[arg(long, value_delimiter = ',', value_parser = STATUSES, ignore_case = true)]
    status: Vec<String>,
    /// Only runs of these tasks
    #[arg(long, value_delimiter = ',')]
    task: Vec<String>,
    /// Only runs with one of these tags
    #[arg(long, value_delimiter = ',')]
    tag: Vec<String>,
    /// Only runs made since: 30d, 12h
    #[arg(long, value_name = "TIME", conflicts_with_all = ["from", "to"])]
    since: Option<String>,
    /// Only runs made from this date on
    #[arg(long, value_name = "DATE")]
    from: Option<String>,
    /// Only runs made up to this date
    #[arg(long, value_name = "DATE")]
    to: Option<String>,
    /// Runs on a page
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
    /// The page after this run, as the page before says
    #[arg(long, value_name = "RUN", conflicts_with = "before")]
    after: Option<String>,
    /// The page before this run
    #[arg(long, value_name = "RUN")]
    before: Option<String>,
}

pub(super) async fn task(context: &Context, task: Task) -> Result<Done, CodedError> {
    // What is typed wrong is said before anything is started or asked.
    match task {
        Task::Trigger(trigger) => {
            let (payload, options) = prepare(&trigger)?;
            start(context, &trigger, &payload, &options).await
        }
        Task::Runs(runs) => {
            let query = query(&runs)?;
            let page = open(context).await?.list(&query).await.map_err(CodedError::from)?;
            answer(context, "runs", page)
        }
        Task::Show { run } => {
            let run = run_id(&run)?;
            let shown = open(context).await?.run(run).await.map_err(|e| no_such(e, run))?;
            answer(context, "show", shown)
        }
        Task::Cancel { run } => cancel(context, run_id(&run)?).await,
        Task::Replay { run } => {
            let old = run_id(&run)?;
            let reply = open(context).await?.replay(old).await.map_err(|e| no_such(e, old))?;
            answer(context, "replay", json!({ "id": reply["id"], "replay_of": old }))
        }
        Task::Reschedule { run, delay } => reschedule(context, run_id(&run)?, &delay).await,
        Task::Export { folder } => export(context, &folder),
    }
}

/// Needs no hub, only the folder's plugins and settings.
fn export(context: &Context, folder: &Path) -> Result<Done, CodedError> {
    let project = find_project(context.common.project.as_deref(), false)?;
    let tasks = facts::exported(&project)?;
    tasks.write(folder)?;
    answer(
        context,
        "export",
        json!({
            "folder": folder,
            "content_hash": tasks.content_hash(),
            "tasks": tasks.tasks,
            "files": tasks.paths().collect::<Vec<_>>(),
            "program_sha256": tasks.program_sha256,
        }),
    )
}

/// What the tasks of `trigger/` start in Trigger.dev's cloud.
pub(super) async fn cloud_run(context: &Context, run: CloudRun) -> Result<Done, CodedError> {
    let mut text = String::new();
    let read = std::io::stdin().take(MAX_PAYLOAD + 1).read_to_string(&mut text);
    let payload = read.map_err(|e| e.to_string()).and_then(|_| serde_json::from_str(&text).map_err(|e| e.to_string()));
    let payload = payload.map_err(|e| {
        CodedError::new("usage.payload", format!("standard input is no JSON payload: {e}"), ["psn task trigger --help"])
    })?;
    let variables =
        std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
    let run = cloud_run::CloudRun {
        component: run.component,
        store: run.store,
        payload,
        attempt: run.attempt,
        scheduled_at: run.scheduled_at,
        run_id: run.run_id.into(),
    };
    let summary =
        cloud_run::cloud_run(run, &variables, std::sync::Arc::clone(&context.redactor), context.events.clone()).await?;
    Ok(Done::Summary(summary))
}

async fn open(context: &Context) -> Result<TriggerApi, CodedError> {
    TriggerApi::open(context.common.project.as_deref(), context.common.hub, &context.redactor, &context.events).await
}

fn answer(context: &Context, command: &str, data: Value) -> Result<Done, CodedError> {
    context.events.emit(&Event::Result { command: format!("{COMMAND}{command}"), data });
    Ok(Done::Ok)
}

async fn start(context: &Context, trigger: &Trigger, payload: &Value, options: &Value) -> Result<Done, CodedError> {
    let task = trigger.task.as_str();
    let api = open(context).await?;
    let deployed = api.deployed_tasks().await?;
    if !deployed.as_ref().unwrap_or(&api.tasks).iter().any(|t| t == task) {
        return Err(unknown(&api, task, deployed.unwrap_or_default()));
    }
    let reply = api.trigger(task, payload, options).await?;
    let id = reply["id"].as_str().unwrap_or_default().to_owned();
    let run = api.run(&id).await.map_err(|e| no_such(e, &id))?;
    let cached = reply["isCached"].as_bool().unwrap_or_default();
    if cached && run["status"] == "CANCELED" {
        return Err(CodedError::new(
            "task.key-cancelled",
            format!(
                "this key belongs to {id}, which was cancelled; a cancelled run keeps its key, so nothing was started"
            ),
            [format!("psn task replay {id}"), format!("psn task show {id}")],
        ));
    }
    answer(
        context,
        "trigger",
        json!({ "id": id, "task": task, "cached": cached, "status": run["status"], "delayed_until": run["delayedUntil"] }),
    )?;
    match trigger.wait {
        Some(seconds) => wait(context, &api, &id, Duration::from_secs(seconds)).await,
        None => Ok(Done::Ok),
    }
}

async fn wait(context: &Context, api: &TriggerApi, id: &str, patience: Duration) -> Result<Done, CodedError> {
    let started = Instant::now();
    loop {
        let run = api.run(id).await.map_err(|e| no_such(e, id))?;
        let status = run["status"].as_str().unwrap_or_default().to_owned();
        if !OPEN.contains(&status.as_str()) {
            let reason = run["error"]["message"].as_str().map(|m| format!(": {m}")).unwrap_or_default();
            answer(context, "show", run)?;
            return match status.as_str() {
                "COMPLETED" => Ok(Done::Ok),
                _ => Err(CodedError::new(
                    "task.run-failed",
                    format!("{id} ended as {status}{reason}"),
                    [format!("psn task show {id}"), format!("psn task replay {id}")],
                )),
            };
        }
        if started.elapsed() >= patience {
            return Err(CodedError::new(
                "task.not-ended",
                format!("{id} is {status} after {} s; it goes on without psn", patience.as_secs()),
                [format!("psn task show {id}"), format!("psn task cancel {id}")],
            )
            .retryable());
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn cancel(context: &Context, id: &str) -> Result<Done, CodedError> {
    let api = open(context).await?;
    api.cancel(id).await.map_err(|e| no_such(e, id))?;
    let run = api.run(id).await.map_err(|e| no_such(e, id))?;
    let status = run["status"].as_str().unwrap_or_default();
    if status != "CANCELED" && !OPEN.contains(&status) {
        return Err(CodedError::new(
            "task.ended",
            format!("{id} had ended as {status} already; there was nothing to cancel"),
            [format!("psn task show {id}"), format!("psn task replay {id}")],
        ));
    }
    answer(context, "cancel", json!({ "id": id, "status": status }))
}

async fn reschedule(context: &Context, id: &str, delay: &str) -> Result<Done, CodedError> {
    when("reschedule", delay)?;
    let api = open(context).await?;
    match api.reschedule(id, delay).await {
        Ok(run) => answer(
            context,
            "reschedule",
            json!({ "id": id, "status": run["status"], "delayed_until": run["delayedUntil"] }),
        ),
        // Trigger.dev has one status for every refusal here, so the run itself says which it was.
        Err(ApiError::Refused(refused)) if matches!(refused.status.as_u16(), 400 | 422) => {
            let run = api.run(id).await.map_err(|e| no_such(e, id))?;
            let status = run["status"].as_str().unwrap_or_default();
            if status == "DELAYED" {
                return Err(ApiError::Refused(refused).into());
            }
            Err(CodedError::new(
                "task.not-delayed",
                format!("{id} is {status}; only a run that is still delayed can be put to another time"),
                [format!("psn task show {id}"), format!("psn task replay {id}")],
            ))
        }
        Err(e) => Err(no_such(e, id)),
    }
}

fn no_such(error: ApiError, id: &str) -> CodedError {
    match error {
        ApiError::Refused(refused) if refused.status.as_u16() == 404 => CodedError::new(
            "task.no-such-run",
            format!("this hub has no run {id}"),
            ["psn task runs", "psn task runs --since 30d"],
        ),
        other => other.into(),
    }
}

/// A typing error, or a plugin that was added and not deployed yet.
fn unknown(api: &TriggerApi, task: &str, deployed: Vec<String>) -> CodedError {
    if api.tasks.iter().any(|t| t == task) {
        return CodedError::new(
            "task.not-deployed",
            format!("{task} is a task of this folder, but the hub runs a deployment without it"),
            ["psn run trigger-provision"],
        );
    }
    let names = if deployed.is_empty() { &api.tasks } else { &deployed };
    let mut fix = Vec::new();
    if let Some(nearest) = names.iter().min_by_key(|n| distance(n, task)) {
        fix.push(format!("psn task trigger {nearest}"));
    }
    fix.push("psn plugin list".to_owned());
    CodedError::new("task.unknown", format!("the hub runs no task `{task}`; it runs: {}", names.join(", ")), fix)
}

fn prepare(trigger: &Trigger) -> Result<(Value, Value), CodedError> {
    let usage = |code: &str, message: String| {
        CodedError::new(code, message, [format!("psn task trigger {} --payload '{{}}'", trigger.task)])
    };
    let text = match trigger.payload.as_str() {
        "-" => {
            let mut text = String::new();
            let read = std::io::stdin().take(MAX_PAYLOAD + 1).read_to_string(&mut text);
            read.map_err(|e| usage("usage.payload", format!("standard input could not be read as text: {e}")))?;
            text
        }
        text => text.to_owned(),
    };
    if text.len() as u64 > MAX_PAYLOAD {
        return Err(usage("usage.payload", format!("the payload is larger than {MAX_PAYLOAD} bytes")));
    }
    let payload: Value =
        serde_json::from_str(&text).map_err(|e| usage("usage.payload", format!("--payload is not JSON: {e}")))?;
    let mut options = json!({ "payloadType": "application/json" });
    if let Some(delay) = &trigger.delay {
        when("trigger", delay)?;
        options["delay"] = json!(delay);
    }
    if let Some(key) = &trigger.idempotency_key {
        if key.is_empty() || key.chars().count() > MAX_KEY_CHARS {
            return Err(usage("usage.key", format!("an idempotency key has 1 to {MAX_KEY_CHARS} characters")));
        }
        options["idempotencyKey"] = json!(key);
    }
    if let Some(ttl) = &trigger.idempotency_key_ttl {
        if duration(ttl).is_none() || ttl.bytes().filter(u8::is_ascii_alphabetic).count() != 1 {
            return Err(usage("usage.time", format!("`{ttl}` is not one number and s, m, h or d")));
        }
        options["idempotencyKeyTTL"] = json!(ttl);
    }
    if let Some(ttl) = &trigger.ttl {
        if duration(ttl).is_none() {
            return Err(usage("usage.time", format!("`{ttl}` is no time such as 10m or 1h30m")));
        }
        options["ttl"] = json!(ttl);
    }
    if !trigger.tags.is_empty() {
        let bad = |tag: &String| tag.trim().is_empty() || tag.contains(',') || tag.chars().count() > MAX_TAG_CHARS;
        if trigger.tags.len() > MAX_TAGS || trigger.tags.iter().any(bad) {
            let message =
                format!("a run has up to {MAX_TAGS} tags of up to {MAX_TAG_CHARS} characters, without commas");
            return Err(usage("usage.tags", message));
        }
        options["tags"] = json!(trigger.tags);
    }
    Ok((payload, options))
}

fn query(runs: &Runs) -> Result<Vec<(&'static str, String)>, CodedError> {
    let mut query = vec![("page[size]", runs.limit.to_string())];
    let lists = [("filter[status]", &runs.status), ("filter[taskIdentifier]", &runs.task), ("filter[tag]", &runs.tag)];
    for (name, values) in lists {
        if !values.is_empty() {
            let text = values.join(",");
            // The states are taken in any case; Trigger.dev knows them in capitals.
            query.push((name, if name == "filter[status]" { text.to_ascii_uppercase() } else { text }));
        }
    }
    let wrong = |what: &str, text: &str| {
        CodedError::new("usage.time", format!("{what} `{text}` is no time"), ["psn task runs --since 30d"])
    };
    if let Some(since) = &runs.since {
        duration(since).ok_or_else(|| wrong("--since", since))?;
        query.push(("filter[createdAt][period]", since.clone()));
    }
    for (option, name, text) in
        [("--from", "filter[createdAt][from]", &runs.from), ("--to", "filter[createdAt][to]", &runs.to)]
    {
        if let Some(text) = text {
            let at = date(text).ok_or_else(|| wrong(option, text))?;
            query.push((name, at.timestamp_millis().to_string()));
        }
    }
    for (name, run) in [("page[after]", &runs.after), ("page[before]", &runs.before)] {
        if let Some(run) = run {
            query.push((name, run_id(run)?.to_owned()));
        }
    }
    Ok(query)
}

fn run_id(text: &str) -> Result<&str, CodedError> {
    let rest = text.strip_prefix("run_").unwrap_or_default();
    if !rest.is_empty() && rest.len() <= 64 && rest.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Ok(text);
    }
    Err(CodedError::new("usage.run-id", "a run's id is run_ and letters and digits", ["psn task runs"]))
}

/// Trigger.dev starts at once what it cannot read or what is past; a post that was to wait would be out.
fn when(command: &str, text: &str) -> Result<(), CodedError> {
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
fn date(text: &str) -> Option<chrono::DateTime<chrono::Utc>> {
    chrono::DateTime::parse_from_rfc3339(text).ok().map(|at| at.to_utc())
}

/// Numbers, each with s, m, h, d or w, as Trigger.dev reads them.
fn duration(text: &str) -> Option<Duration> {
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

    #[test]
    fn a_runs_id_is_nothing_else() {
        assert!(run_id("run_cm0abc123").is_ok());
        for bad in ["", "run_", "run_../../orgs", "sched_1", "run_a b"] {
            assert!(run_id(bad).is_err(), "{bad}");
        }
    }
}
