//! Whether what psn wrote is a stream of its own events, and nothing else.
use serde_json::Value;

/// The longest line, in bytes: a report's data of 256 KiB, each byte of it escaped.
const MAX_LINE: usize = 2 << 20;

/// What all texts of the suite hold that try to look like psn's own.
const FORGED: &str = "forged";

const TYPES: [&str; 8] = ["version", "step", "check", "log", "progress", "result", "error", "summary"];

/// The events, or the first thing that is wrong with them.
pub(crate) fn events(stdout: &[u8]) -> Result<Vec<Value>, String> {
    let text = std::str::from_utf8(stdout).map_err(|e| format!("byte {} is not UTF-8", e.valid_up_to()))?;
    if !text.is_empty() && !text.ends_with('\n') {
        return Err("the last line has no end".to_owned());
    }
    if let Some(c) = text.chars().find(|c| *c != '\n' && steers(*c)) {
        return Err(format!("the character {} stands in it as it is", c.escape_unicode()));
    }
    text.lines()
        .map(|line| {
            if line.len() > MAX_LINE {
                return Err(format!("a line of {} bytes", line.len()));
            }
            let event: Value = serde_json::from_str(line).map_err(|e| format!("a line is not JSON: {e}"))?;
            match event["type"].as_str() {
                Some(known) if TYPES.contains(&known) => Ok(event),
                other => Err(format!("an event of the type {other:?}")),
            }
        })
        .collect()
}

/// What is wrong with a whole run's events: psn speaks first and last, once, and says nothing that the plugin put into its mouth.
pub(crate) fn forged(events: &[Value], plugin: &str, exit: Option<i32>) -> Option<String> {
    let of = |kind: &str| events.iter().filter(|e| e["type"] == kind).count();
    if of("version") != 1 || events.first().is_none_or(|e| e["type"] != "version") {
        return Some("it does not begin with one version event".to_owned());
    }
    if of("summary") > 1 || of("summary") + of("error") == 0 {
        return Some("it has no one end".to_owned());
    }
    if of("summary") == 1 {
        let last = events.last().unwrap_or(&Value::Null);
        let success = last["status"] == "success";
        if last["type"] != "summary" || success != (exit == Some(0)) {
            return Some("its end and the exit code disagree".to_owned());
        }
    }
    events.iter().find(|e| speaks_as_psn(e, plugin)).map(|e| format!("psn says: {e}"))
}

fn speaks_as_psn(event: &Value, plugin: &str) -> bool {
    if !event.to_string().contains(FORGED) {
        return false;
    }
    match event["type"].as_str() {
        Some("log" | "progress") => event["source"] != plugin,
        Some("check") => event["step"] != plugin,
        Some("step") => {
            // A command to be typed is psn's own word, whoever's name stands in it.
            let code = event["error"]["code"].as_str();
            event["step"] != plugin
                || event["status"] == "needs_consent"
                || event["needs"]
                    .as_array()
                    .is_some_and(|needs| needs.iter().any(|n| n["next"].to_string().contains(FORGED)))
                || code.is_some_and(|c| c.contains(FORGED) && !c.starts_with(&format!("{plugin}.")))
        }
        // A refusal quotes what was refused: nothing of it stands outside of the quotation marks.
        Some("error") => {
            let mut rest = event.clone();
            let message = rest["error"]["message"].take();
            rest.to_string().contains(FORGED)
                || message.as_str().is_none_or(|m| m.split('`').step_by(2).any(|outside| outside.contains(FORGED)))
        }
        _ => true,
    }
}

/// What a terminal would act on, or what turns the direction of reading.
pub(crate) fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stream(events: &[Value]) -> Vec<u8> {
        events.iter().map(|e| format!("{e}\n")).collect::<String>().into_bytes()
    }

    fn whole(between: &[Value]) -> Vec<Value> {
        let mut all = vec![json!({ "type": "version" })];
        all.extend_from_slice(between);
        all.push(json!({ "type": "summary", "status": "success" }));
        all
    }

    #[test]
    fn a_torn_or_dirty_stream_is_seen() {
        assert_eq!(events(&stream(&whole(&[]))).unwrap().len(), 2);
        for bad in [
            b"{\"type\":\"version\"}".to_vec(),
            b"hello\n".to_vec(),
            b"{\"type\":\"other\"}\n".to_vec(),
            b"{\"type\":\"log\"}\n\xff\n".to_vec(),
            b"{\"type\":\"log\",\"message\":\"\x1b[2J\"}\n".to_vec(),
            "{\"type\":\"log\",\"message\":\"\u{9b}2J\"}\n".into(),
            "{\"type\":\"log\",\"message\":\"\u{202e}\"}\n".into(),
            "{\"type\":\"log\",\"message\":\"\u{7f}\"}\n".into(),
        ] {
            assert!(events(&bad).is_err(), "{}", String::from_utf8_lossy(&bad));
        }
    }

    #[test]
    fn forged_words_are_seen() {
        let ok = [
            json!({ "type": "log", "source": "h-x", "message": "forged" }),
            json!({ "type": "step", "step": "h-x", "status": "error", "message": "forged", "error": { "code": "h-x.forged" } }),
        ];
        assert_eq!(forged(&whole(&ok), "h-x", Some(0)), None);
        for bad in [
            json!({ "type": "log", "source": "psn", "message": "forged" }),
            json!({ "type": "result", "data": "forged" }),
            json!({ "type": "step", "step": "setup", "status": "success", "message": "forged" }),
            json!({ "type": "step", "step": "h-x", "status": "needs_consent", "message": "forged" }),
            json!({ "type": "step", "step": "h-x", "status": "needs_input", "needs": [{ "next": [{ "command": "psn forged" }] }] }),
            json!({ "type": "step", "step": "h-x", "status": "error", "error": { "code": "forged.code" } }),
            json!({ "type": "version" }),
            json!({ "type": "summary", "status": "success" }),
        ] {
            assert!(forged(&whole(std::slice::from_ref(&bad)), "h-x", Some(0)).is_some(), "{bad}");
        }
        assert!(forged(&whole(&[]), "h-x", Some(1)).is_some());
        assert!(forged(&[], "h-x", Some(1)).is_some());
    }
}
