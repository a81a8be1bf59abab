//! What people see of a result.
use serde_json::Value;

use crate::shell;

/// A table of runs, or one run as a few lines.
pub(in crate::cli) fn lines(data: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if let Some(runs) = data["data"].as_array() {
        let mut lines: Vec<String> = runs
            .iter()
            .map(|run| {
                let tags: Vec<&str> = run["tags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                let (id, status, task) = (text(&run["id"]), text(&run["status"]), text(&run["taskIdentifier"]));
                format!("{id}  {status:<15}  {}  {task}  {}", text(&run["createdAt"]), tags.join(" "))
                    .trim_end()
                    .to_owned()
            })
            .collect();
        if lines.is_empty() {
            lines.push("no runs".to_owned());
        }
        if let Some(next) = data["next"].as_str() {
            lines.push(format!("more: {next}"));
        }
        return lines;
    }
    if let Some(schedules) = data["schedules"].as_array() {
        let mut lines: Vec<String> = schedules
            .iter()
            .map(|one| {
                let state = if one["active"] == true { "on " } else { "off" };
                let (cron, next) = (text(&one["generator"]["expression"]), text(&one["nextRun"]));
                let (id, task, zone) = (text(&one["id"]), text(&one["task"]), text(&one["timezone"]));
                let next = if one["active"] == true { format!("  next {next}") } else { String::new() };
                format!("{id}  {state}  {task}  `{cron}` {zone}{next}")
            })
            .collect();
        if lines.is_empty() {
            lines.push("no schedules".to_owned());
        }
        return lines;
    }
    if let Some(folder) = data["folder"].as_str() {
        let tasks: Vec<&str> = data["tasks"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        return vec![
            format!("wrote {} to {folder}", tasks.join(", ")),
            format!("  deployment: {}", text(&data["content_hash"])),
            format!("  program: {}, {} bytes", text(&data["program"]["kind"]), data["program"]["bytes"]),
            format!(
                "  by hand: cd {} && npm ci --omit=dev --ignore-scripts && npx trigger deploy --project-ref proj_…",
                shell::word(folder)
            ),
        ];
    }
    let task = if data["task"].is_string() { &data["task"] } else { &data["taskIdentifier"] };
    let mut lines = vec![
        [text(&data["id"]), text(task), text(&data["status"])]
            .iter()
            .filter(|w| !w.is_empty())
            .cloned()
            .collect::<Vec<_>>()
            .join("  "),
    ];
    if data["cached"] == true {
        lines.push("this run had the idempotency key already; nothing was started".to_owned());
    }
    for (name, value) in [
        ("replay of", &data["replay_of"]),
        ("delayed until", &data["delayed_until"]),
        ("delayed until", &data["delayedUntil"]),
        ("created", &data["createdAt"]),
        ("started", &data["startedAt"]),
        ("ended", &data["finishedAt"]),
        ("payload", &data["payload"]),
        ("output", &data["output"]),
        ("error", &data["error"]["message"]),
    ] {
        match value {
            Value::Null => {}
            Value::String(text) => lines.push(format!("  {name}: {text}")),
            other => lines.push(format!("  {name}: {other}")),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_schedule_that_is_off_has_no_next_run() {
        let schedule = |active: bool| {
            json!({ "id": "sched_1", "task": "t", "active": active, "timezone": "UTC", "nextRun": "2026",
            "generator": { "expression": "0 * * * *" } })
        };
        let lines = lines(&json!({ "schedules": [schedule(true), schedule(false)] }));
        assert_eq!(lines, ["sched_1  on   t  `0 * * * *` UTC  next 2026", "sched_1  off  t  `0 * * * *` UTC"]);
    }

    #[test]
    fn an_export_says_which_program_it_has_and_how_it_is_deployed() {
        let export = json!({ "folder": "my tasks", "content_hash": "ab", "tasks": ["a", "b"],
            "program": { "kind": "psn-worker", "bytes": 10 } });
        let lines = lines(&export);
        assert_eq!(lines[..3], ["wrote a, b to my tasks", "  deployment: ab", "  program: psn-worker, 10 bytes"]);
        assert!(lines[3].starts_with("  by hand: cd 'my tasks' && "), "{lines:?}");
    }

    #[test]
    fn people_see_where_the_next_page_is() {
        let page = json!({ "data": [{ "id": "run_1", "status": "QUEUED", "taskIdentifier": "t", "createdAt": "2026", "tags": ["a"] }],
            "pagination": { "next": "run_1" }, "next": "psn task runs --after run_1" });
        let lines = lines(&page);
        assert!(lines[0].starts_with("run_1  QUEUED") && lines[0].ends_with("t  a"), "{lines:?}");
        assert_eq!(lines[1], "more: psn task runs --after run_1");
    }
}
