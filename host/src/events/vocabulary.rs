//! The words that psn's own events are made of. As a secret, one would be blotted out of every line.
use std::sync::OnceLock;

use serde_json::Value;

use super::types::{Event, SCHEMA_NAME};

/// Every error code of psn has a heading there; a test compares it with the sources.
const CODES: &str = include_str!("../../../docs/errors.md");

/// What no type says: the steps and the tasks that psn brings, where errors are explained, and who speaks.
const NAMES: &str = "keys neon-provision neon-provision-cli migrate trigger-provision validate watchdog docs/errors.md# local cloud psn";

/// Field names, names of types and statuses, error codes, and names, apart from each other by a space.
pub fn words() -> &'static str {
    static WORDS: OnceLock<String> = OnceLock::new();
    WORDS.get_or_init(|| {
        let mut words = vec![SCHEMA_NAME.to_owned(), NAMES.to_owned()];
        collect(schemars::schema_for!(Event).as_value(), &mut words);
        let headings = CODES.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'));
        words.extend(headings.map(str::to_owned));
        words.sort_unstable();
        words.dedup();
        words.join(" ")
    })
}

/// Names of properties, and values that a field is limited to.
fn collect(schema: &Value, words: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), value) {
                    ("properties", Value::Object(fields)) => words.extend(fields.keys().cloned()),
                    ("const", Value::String(word)) => words.push(word.clone()),
                    ("enum", Value::Array(all)) => {
                        words.extend(all.iter().filter_map(Value::as_str).map(str::to_owned));
                    }
                    _ => {}
                }
                collect(value, words);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, words)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_types_statuses_and_codes_are_among_them() {
        let all: Vec<&str> = words().split(' ').collect();
        for word in [
            "needs_consent",
            "memory_peak",
            "elapsed_ms",
            "retryable",
            "summary",
            "progress",
            "run.locked",
            "psn.events/1",
        ] {
            assert!(all.contains(&word), "{word}");
        }
    }
}
