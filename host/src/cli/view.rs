//! What people see on standard error: the events, as lines.
use std::io::Write as _;

use crate::events::{CheckStatus, Event, Level, StepStatus, steers};

/// A view of events. `color` where a terminal shows it.
pub(super) fn view(color: bool) -> Box<dyn Fn(&Event) + Send + Sync> {
    Box::new(move |event| {
        let mut err = std::io::stderr().lock();
        for line in lines(event) {
            let (on, off) = if color { (line.color, "\x1b[0m") } else { ("", "") };
            // Without a reader there is nobody to tell.
            let _ = writeln!(err, "{on}{}{off}{}", printable(&line.mark), printable(&line.text));
        }
    })
}

struct Line {
    color: &'static str,
    mark: String,
    text: String,
}

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const DIM: &str = "\x1b[2m";

fn lines(event: &Event) -> Vec<Line> {
    let line = |color, mark: &str, text: String| Line { color, mark: mark.to_owned(), text };
    match event {
        Event::Version { .. } => Vec::new(),
        Event::Result { command, data } => match super::shown(command, data) {
            Some(shown) => shown.into_iter().map(|text| line("", "  ", text)).collect(),
            // What a result has for people; the rest is for programs.
            None => {
                let dim = |text: String| line(DIM, if text.starts_with(' ') { "  " } else { "" }, text);
                texts(data, "lines").map(dim).collect()
            }
        },
        Event::Progress { source, message, .. } if source == "setup" => vec![line(DIM, message, String::new())],
        Event::Progress { source, message, .. } => vec![line(DIM, "      ", format!("{source}: {message}"))],
        Event::Log { level: Level::Debug, .. } => Vec::new(),
        Event::Log { level, source, message, .. } => {
            let color = match level {
                Level::Error => RED,
                Level::Warn => YELLOW,
                Level::Info | Level::Debug => DIM,
            };
            vec![line(color, "      ", format!("{source}: {message}"))]
        }
        Event::Check(check) => {
            let (color, mark) = match check.status {
                CheckStatus::Pass => (GREEN, "    ✓ "),
                CheckStatus::Warn => (YELLOW, "    ! "),
                CheckStatus::Fail => (RED, "    ✗ "),
                CheckStatus::Skip => (DIM, "    - "),
            };
            // The message may carry its own mark, for those who read events.
            let text = check.message.trim_start_matches(['✓', '✗', '!', ' ']).to_owned();
            let mut lines = vec![line(color, mark, text)];
            lines.extend(check.fix.iter().map(|f| line(DIM, "        → ", f.clone())));
            lines
        }
        Event::Step(step) => {
            let (color, mark) = match step.status {
                StepStatus::Running => (DIM, "  … "),
                StepStatus::Success => (GREEN, "  ✓ "),
                StepStatus::Skipped => (GREEN, "  = "),
                StepStatus::Error => (RED, "  ✗ "),
                StepStatus::NeedsInput | StepStatus::NeedsConsent => (YELLOW, "  ? "),
                StepStatus::Planned => (YELLOW, "  ~ "),
            };
            let mut lines = vec![line(color, mark, format!("{}: {}", step.step, step.message))];
            if let (StepStatus::NeedsConsent, Some(data)) = (step.status, &step.data) {
                lines = vec![line(color, mark, format!("{} needs a person's consent", step.step))];
                for (key, title) in [
                    ("difference", "changed since it was granted:"),
                    ("asks", "it asks to"),
                    ("withheld", "not allowed by config/policy.toml:"),
                ] {
                    let items: Vec<String> = texts(data, key).collect();
                    lines.extend((!items.is_empty()).then(|| line(DIM, "      ", title.to_owned())));
                    lines.extend(items.into_iter().map(|item| line(DIM, "      | ", item)));
                }
            }
            lines.extend(step.changes.iter().map(|c| line(DIM, "      ", c.clone())));
            for need in &step.needs {
                lines.push(line(YELLOW, "      ", format!("{}: {}", need.name, need.origin)));
                lines
                    .extend(need.next.iter().map(|n| line(DIM, "        → ", format!("{}   ({})", n.command, n.when))));
            }
            lines.extend(step.error.iter().flat_map(|e| &e.fix).map(|f| line(DIM, "      → ", f.clone())));
            lines
        }
        Event::Error { error } => {
            let mut lines = vec![line(RED, "✗ ", error.to_string())];
            lines.extend(error.fix.iter().map(|f| line(DIM, "  → ", f.clone())));
            lines
        }
        Event::Summary(s) => {
            let (color, mark) = if s.status == StepStatus::Success { (GREEN, "✓ ") } else { (YELLOW, "") };
            let seconds = s.elapsed_ms as f64 / 1000.0;
            let text = format!(
                "{} done, {} skipped, {} failed of {} in {seconds:.1} s",
                s.succeeded, s.skipped, s.failed, s.steps
            );
            vec![line(color, mark, text)]
        }
    }
}

/// A list of texts in an event's data.
fn texts<'a>(data: &'a serde_json::Value, key: &str) -> impl Iterator<Item = String> + use<'a> {
    data.get(key).and_then(|v| v.as_array()).into_iter().flatten().filter_map(|v| v.as_str()).map(str::to_owned)
}

/// A component's words must not move the cursor or look like psn's own lines.
fn printable(text: &str) -> String {
    text.chars().map(|c| if steers(c) { '\u{fffd}' } else { c }).collect()
}
