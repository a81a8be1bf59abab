//! What people see of the answers of `psn task`.
use serde_json::Value;

/// What people see of a result: a table of runs, or one run as a few lines.
pub(super) fn lines(data: &Value) -> Vec<String> {
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
        if let Some(next) = data["pagination"]["next"].as_str() {
            lines.push(format!("more: psn task runs --after {next}"));
        }
        return lines;
    }
    if let Some(folder) = data["folder"].as_str() {
        let tasks: Vec<&str> = data["tasks"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        return vec![
            format!("wrote {} to {folder}", tasks.join(", ")),
            format!("  deployment: {}", text(&data["content_hash"])),
            format!(
                "  by hand: cd {folder} && npm ci --omit=dev --ignore-scripts && npx trigger deploy --project-ref proj_…"
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
    use serde_json::json;

    use super::*;

    #[test]
    fn people_see_what_was_exported() {
        let lines = lines(&json!({ "folder": "out", "content_hash": "ab", "tasks": ["digest", "watchdog"] }));
        assert_eq!(lines[..2], ["wrote digest, watchdog to out", "  deployment: ab"]);
    }

    #[test]
    fn people_see_where_the_next_page_is() {
        let page = json!({ "data": [{ "id": "run_1", "status": "QUEUED", "taskIdentifier": "t", "createdAt": "2026", "tags": ["a"] }],
            "pagination": { "next": "run_1" } });
        let lines = lines(&page);
        assert!(lines[0].starts_with("run_1  QUEUED") && lines[0].ends_with("t  a"), "{lines:?}");
        assert_eq!(lines[1], "more: psn task runs --after run_1");
    }
}
