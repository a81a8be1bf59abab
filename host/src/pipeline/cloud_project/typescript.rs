//! The TypeScript that is written per hub and per task, as Biome would format it.
use std::fmt::Write as _;

use super::{max_duration, schedule};
use crate::plugins::manifest::{Manifest, Retry, parse_duration};

/// Seconds that a task may take whose manifest names no limit.
const MAX_DURATION: u64 = 300;

pub(super) fn settings(runtime: &str) -> String {
    format!(
        "// Written by psn. Changes are lost: `psn config set trigger.runtime` sets the first.\n\n\
         export const runtime: 'bun-1.4' | 'node-24' = {};\n\n\
         export const maxDuration = {MAX_DURATION};\n",
        quoted(runtime)
    )
}

/// `compiled` names the component's compiled code, where the program cannot compile it.
pub(super) fn task(manifest: &Manifest, component: &str, compiled: Option<&str>) -> String {
    let spec = manifest.task.clone().unwrap_or_default();
    let mut text = format!(
        "// Written by psn from a plugin's manifest. Changes are lost: psn writes it anew.\n\
         import {{ psnTask }} from '../psn.js';\n\n\
         export const task = psnTask({{\n  id: {},\n  component: {},\n",
        quoted(manifest.task_id()),
        quoted(component)
    );
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = writeln!(text, "  {name}: {value},");
        }
    };
    line("compiled", compiled.map(quoted));
    let cron = spec.cron.as_deref();
    line("cron", cron.map(quoted));
    line("hourly", cron.and_then(schedule::hourly).as_deref().map(quoted));
    line("timezone", cron.and(spec.timezone.as_deref()).map(quoted));
    line("maxDurationSeconds", max_duration(spec.max_duration.as_deref()).map(|seconds| seconds.to_string()));
    line("queue", spec.queue.as_deref().map(quoted));
    line("retry", spec.retry.as_ref().map(retry));
    text.push_str("});\n");
    text
}

fn retry(retry: &Retry) -> String {
    let milliseconds =
        |text: &Option<String>| text.as_deref().and_then(parse_duration).map(|d| d.as_millis().to_string());
    let fields = [
        ("maxAttempts", Some(retry.max_attempts.to_string())),
        ("minTimeoutInMs", milliseconds(&retry.min)),
        ("maxTimeoutInMs", milliseconds(&retry.max)),
        ("factor", retry.factor.filter(|factor| factor.is_finite()).map(|factor| factor.to_string())),
        ("randomize", Some(retry.jitter.to_string())),
    ];
    let fields: Vec<String> =
        fields.into_iter().filter_map(|(name, value)| Some(format!("{name}: {}", value?))).collect();
    format!("{{ {} }}", fields.join(", "))
}

/// A string that says exactly this and nothing more: a manifest is anybody's.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("'");
    for c in text.chars() {
        match c {
            ' '..='~' if c != '\'' && c != '\\' => quoted.push(c),
            _ => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    let _ = write!(quoted, "\\u{unit:04x}");
                }
            }
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(task: &str) -> Manifest {
        let text = format!(
            "[plugin]\nname = \"watchdog\"\nversion = \"0.1.0\"\nsummary = \"x\"\nworld = \"psn:plugin/task@0.1.0\"\n{task}"
        );
        Manifest::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_task_says_what_its_manifest_says() {
        let manifest = manifest(
            "[task]\ncron = \"*/15 * * * *\"\nmax-duration = \"90s\"\nqueue = \"posts\"\n\
             retry = { max-attempts = 3, min = \"1s\", max = \"10s\", factor = 1.5, jitter = true }\n",
        );
        let text = task(&manifest, "components/watchdog@sha256-aa.wasm", Some("sha256-bb"));
        let body = text.split_once("psnTask(").unwrap().1;
        assert_eq!(
            body,
            "{\n  id: 'watchdog',\n  component: 'components/watchdog@sha256-aa.wasm',\n  compiled: 'sha256-bb',\n  cron: '*/15 * * * *',\n  \
             hourly: '0 * * * *',\n  maxDurationSeconds: 90,\n  queue: 'posts',\n  retry: { maxAttempts: 3, \
             minTimeoutInMs: 1000, maxTimeoutInMs: 10000, factor: 1.5, randomize: true },\n});\n"
        );
    }

    #[test]
    fn nothing_in_a_manifest_becomes_code() {
        let nasty = "'}); process.exit(1); //\\\n\u{2028}${x}`😀";
        let text = quoted(nasty);
        assert_eq!(text, "'\\u0027}); process.exit(1); //\\u005c\\u000a\\u2028${x}`\\ud83d\\ude00'");
        assert!(!task(&manifest(""), "x", None).contains("compiled"));
        let manifest = manifest("[task]\nqueue = \"a'\\nb\"\n");
        assert!(task(&manifest, "x", None).contains("queue: 'a\\u0027\\u000ab',"));
    }
}
