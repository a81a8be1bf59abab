//! Does what an error says is to be done, to the letter.
use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::rig::{Case, Ended};

/// Errors that lead to errors: more of them than this lead nowhere.
const MOST_STEPS: usize = 4;
/// How a fix says that what was typed is to be typed again.
const AGAIN: &str = "ame command";

/// What following an error came to.
#[derive(Debug, Default)]
pub struct Followed {
    /// Codes, from the first error to the last.
    pub codes: Vec<String>,
    /// Fixes that only a person can do.
    pub words: Vec<String>,
    /// Why it led nowhere.
    pub lost: Option<String>,
}

/// From an ended psn that failed to a setup that succeeds. The service is whole again by then.
pub fn follow(case: &Case<'_>, failed: &Ended, setup: &[&str]) -> Followed {
    let mut followed = Followed::default();
    let mut error = match error_of(failed) {
        Ok(error) => error,
        Err(why) => return Followed { lost: Some(why), ..followed },
    };
    for _ in 0..MOST_STEPS {
        followed.codes.push(error["code"].as_str().unwrap_or_default().to_owned());
        let fixes: Vec<&str> = error["fix"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let Some(first) = fixes.first() else {
            followed.lost = Some(format!("no fix: {error}"));
            return followed;
        };
        let command = fixes.iter().find_map(|fix| command(fix, setup));
        if command.is_none() {
            followed.words.push((*first).to_owned());
        }
        // What only words say, a person does, and types the command again.
        let command = command.unwrap_or_else(|| setup.iter().map(|s| (*s).to_owned()).collect());
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let ended = case.psn(&words);
        if ended.answer.code == Some(0) {
            let last = if words == setup { ended } else { case.psn(setup) };
            if last.answer.code == Some(0) {
                return followed;
            }
            error = match error_of(&last) {
                Ok(error) => error,
                Err(why) => return Followed { lost: Some(why), ..followed },
            };
            continue;
        }
        error = match error_of(&ended) {
            Ok(error) => error,
            Err(why) => return Followed { lost: Some(why), ..followed },
        };
    }
    followed.lost = Some(format!("after {MOST_STEPS} fixes there is still {error}"));
    followed
}

/// A fix that can be typed, as psn's arguments.
fn command(fix: &str, setup: &[&str]) -> Option<Vec<String>> {
    if let Some(arguments) = fix.strip_prefix("psn ") {
        let is_placeholder = |w: &str| w.len() > 1 && w.bytes().all(|b| b.is_ascii_uppercase());
        let words: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
        return (!words.iter().any(|w| is_placeholder(w))).then_some(words);
    }
    fix.contains(AGAIN).then(|| setup.iter().map(|s| (*s).to_owned()).collect())
}

/// The error of a psn that failed as it should: coded, with fixes, without a panic.
pub fn error_of(ended: &Ended) -> Result<Value, String> {
    let answer = &ended.answer;
    if answer.stderr.contains("panicked at") {
        return Err(format!("it panicked: {}", answer.stderr));
    }
    if ended.killed || !matches!(answer.code, Some(1 | 4 | 5)) {
        return Err(format!("it ended with {:?}: {}", answer.code, answer.stderr));
    }
    let error = answer.events.iter().rev().find(|e| e["error"].is_object()).map(|e| e["error"].clone());
    error.ok_or_else(|| format!("exit {:?} without an error: {}", answer.code, answer.stdout))
}

/// The codes of docs/errors.md.
pub fn documented() -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/errors.md");
    let text = std::fs::read_to_string(path).expect("docs/errors.md");
    text.lines().filter_map(|l| l.strip_prefix("### `")?.strip_suffix('`')).map(str::to_owned).collect()
}

/// Under its own name, or as what every plugin can say.
pub fn is_documented(documented: &BTreeSet<String>, code: &str) -> bool {
    let any = code.split_once('.').map(|(_, reason)| format!("<plugin>.{reason}")).unwrap_or_default();
    documented.contains(code) || documented.contains(&any)
}
