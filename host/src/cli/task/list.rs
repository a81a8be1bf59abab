//! `psn task runs`: what is asked for, as Trigger.dev's query.
use clap::Args;

use super::run_id;
use super::time::{date, duration};
use crate::error::CodedError;
use crate::shell;

/// Runs on a page, where nothing else is said.
const PAGE: u32 = 25;

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

#[derive(Args)]
pub(in crate::cli) struct Runs {
    /// Only runs in these states
    #[arg(long, value_delimiter = ',', value_parser = STATUSES, ignore_case = true)]
    status: Vec<String>,
    /// Only runs of these tasks
    #[arg(long, value_delimiter = ',')]
    task: Vec<String>,
    /// Only runs with one of these tags
    #[arg(long, value_delimiter = ',')]
    tag: Vec<String>,
    /// Only runs on these deployments, for example 20270131.1
    #[arg(long = "deployment", value_name = "VERSION", value_delimiter = ',')]
    version: Vec<String>,
    /// Only runs of this batch
    #[arg(long, value_name = "BATCH")]
    batch: Option<String>,
    /// Only runs that this schedule started, as `psn task schedules` names it
    #[arg(long, value_name = "SCHEDULE")]
    schedule: Option<String>,
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
    #[arg(long, default_value_t = PAGE, value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
    /// The page after this run, as the page before says
    #[arg(long, value_name = "RUN", conflicts_with = "before")]
    after: Option<String>,
    /// The page before this run
    #[arg(long, value_name = "RUN")]
    before: Option<String>,
}

impl Runs {
    /// The command for the page after this run, of the same runs.
    pub(super) fn page_after(&self, run: &str) -> String {
        let mut words = vec!["psn task runs".to_owned()];
        let lists =
            [("--status", &self.status), ("--task", &self.task), ("--tag", &self.tag), ("--deployment", &self.version)];
        for (name, values) in lists.into_iter().filter(|(_, values)| !values.is_empty()) {
            words.push(format!("{name} {}", shell::word(&values.join(","))));
        }
        let named = [
            ("--batch", &self.batch),
            ("--schedule", &self.schedule),
            ("--since", &self.since),
            ("--from", &self.from),
            ("--to", &self.to),
        ];
        for (name, value) in named.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
            words.push(format!("{name} {}", shell::word(value)));
        }
        if self.limit != PAGE {
            words.push(format!("--limit {}", self.limit));
        }
        words.push(format!("--after {}", shell::word(run)));
        words.join(" ")
    }
}

pub(super) fn query(runs: &Runs) -> Result<Vec<(&'static str, String)>, CodedError> {
    let mut query = vec![("page[size]", runs.limit.to_string())];
    let lists = [
        ("filter[status]", &runs.status),
        ("filter[taskIdentifier]", &runs.task),
        ("filter[tag]", &runs.tag),
        ("filter[version]", &runs.version),
    ];
    for (name, values) in lists {
        if !values.is_empty() {
            let text = values.join(",");
            // The states are taken in any case; Trigger.dev knows them in capitals.
            query.push((name, if name == "filter[status]" { text.to_ascii_uppercase() } else { text }));
        }
    }
    // Trigger.dev answers an id of another kind with an empty list, as if there were no such runs.
    for (name, prefix, id, list) in [
        ("filter[batch]", "batch_", &runs.batch, "psn task runs"),
        ("filter[schedule]", "sched_", &runs.schedule, "psn task schedules"),
    ] {
        if let Some(id) = id {
            if !id.starts_with(prefix) {
                let message = format!("`{id}` is no id of that kind: it begins with {prefix}");
                return Err(CodedError::new("usage.filter", message, [list]));
            }
            query.push((name, id.clone()));
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        runs: Runs,
    }

    fn parse(words: &[&str]) -> Runs {
        Line::try_parse_from(std::iter::once(&"psn").chain(words)).unwrap().runs
    }

    #[test]
    fn the_next_page_is_one_of_the_same_runs() {
        assert_eq!(parse(&[]).page_after("run_1"), "psn task runs --after run_1");
        let asked = [
            ["--status", "failed,CRASHED"],
            ["--task", "publish-post,watchdog"],
            ["--tag", "a b"],
            ["--deployment", "20270131.1"],
            ["--batch", "batch_1"],
            ["--schedule", "sched_1"],
            ["--since", "30d"],
            ["--limit", "7"],
        ];
        let runs = parse(&asked.concat());
        let next = runs.page_after("run_1");
        assert_eq!(
            next,
            "psn task runs --status failed,CRASHED --task publish-post,watchdog --tag 'a b' --deployment 20270131.1 --batch batch_1 \
             --schedule sched_1 --since 30d --limit 7 --after run_1"
        );
        // Typed again without its quotes' blank, it asks for the same and for what comes after.
        let next = next.replace("'a b'", "a_b");
        let words: Vec<&str> = next.split(' ').skip(3).collect();
        let mut expected = query(&runs).unwrap();
        expected.push(("page[after]", "run_1".to_owned()));
        let again: Vec<_> =
            query(&parse(&words)).unwrap().into_iter().map(|(k, v)| (k, v.replace("a_b", "a b"))).collect();
        assert_eq!(again, expected);
        let from = parse(&["--from", "2027-01-31", "--to", "2027-02-01"]).page_after("run_1");
        assert_eq!(from, "psn task runs --from 2027-01-31 --to 2027-02-01 --after run_1");
        // From a page that is itself not the first one.
        assert_eq!(parse(&["--after", "run_0"]).page_after("run_1"), "psn task runs --after run_1");
    }
}
