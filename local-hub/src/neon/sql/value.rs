//! Parameters to text and text to JSON, as Neon's proxy does both.
use serde_json::{Number, Value};

/// Types whose values are no strings in JSON, by the numbers that Postgres fixed for them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Bool,
    Int,
    Float,
    Json,
    Other,
}

fn kind(oid: u32) -> Kind {
    match oid {
        16 => Kind::Bool,
        21 | 23 => Kind::Int,
        700 | 701 => Kind::Float,
        114 | 3802 => Kind::Json,
        _ => Kind::Other,
    }
}

/// The kind of an array's elements, for the arrays of Postgres' own types.
fn element(oid: u32) -> Option<Kind> {
    match oid {
        1000 => Some(Kind::Bool),
        1005 | 1007 => Some(Kind::Int),
        1021 | 1022 => Some(Kind::Float),
        199 | 3807 => Some(Kind::Json),
        // bytea, name, bpchar, text, varchar, int8, oid, date, time, timestamp, timestamptz, interval, numeric, uuid
        1001 | 1003 | 1014 | 1009 | 1015 | 1016 | 1028 | 1182 | 1183 | 1115 | 1185 | 1187 | 1231 | 2951 => {
            Some(Kind::Other)
        }
        _ => None,
    }
}

/// A parameter as Postgres reads it.
pub(super) fn parameter(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => Some(array(items)),
        other => Some(other.to_string()),
    }
}

fn array(items: &[Value]) -> String {
    let items: Vec<String> = items
        .iter()
        .map(|item| match item {
            Value::Null => "NULL".to_owned(),
            Value::Array(items) => array(items),
            Value::Bool(_) | Value::Number(_) => item.to_string(),
            Value::String(text) => quoted(text),
            Value::Object(_) => quoted(&item.to_string()),
        })
        .collect();
    format!("{{{}}}", items.join(","))
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A value as JSON, unless raw text was asked for.
pub(super) fn json(text: Option<String>, oid: u32, raw: bool) -> Value {
    let Some(text) = text else { return Value::Null };
    if raw {
        return Value::String(text);
    }
    match element(oid) {
        Some(kind) => parse_array(&text, kind).unwrap_or(Value::String(text)),
        None => scalar(text, kind(oid)),
    }
}

fn scalar(text: String, kind: Kind) -> Value {
    match kind {
        Kind::Bool => Value::Bool(text == "t"),
        Kind::Int => text.parse::<i64>().map_or(Value::String(text), Value::from),
        // NaN and the infinities have no number in JSON.
        Kind::Float => match text.parse::<f64>().ok().and_then(Number::from_f64) {
            Some(number) => Value::Number(number),
            None => Value::String(text),
        },
        Kind::Json => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        Kind::Other => Value::String(text),
    }
}

/// `{1,2,NULL}`, `{{a,"b c"},{d,e}}`, `[0:1]={1,2}`. None where it is not one.
fn parse_array(text: &str, kind: Kind) -> Option<Value> {
    let body = if text.starts_with('[') { text.split_once('=')?.1 } else { text };
    let mut chars = body.chars().peekable();
    (chars.next()? == '{').then_some(())?;
    let value = list(&mut chars, kind)?;
    chars.next().is_none().then_some(value)
}

fn list(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, kind: Kind) -> Option<Value> {
    let mut items = Vec::new();
    loop {
        match chars.peek()? {
            '}' => {
                chars.next();
                return Some(Value::Array(items));
            }
            ',' => {
                chars.next();
            }
            '{' => {
                chars.next();
                items.push(list(chars, kind)?);
            }
            '"' => {
                chars.next();
                let mut item = String::new();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '\\' => item.push(chars.next()?),
                        c => item.push(c),
                    }
                }
                items.push(scalar(item, kind));
            }
            _ => {
                let mut item = String::new();
                while let Some(c) = chars.next_if(|c| !matches!(c, ',' | '}')) {
                    item.push(c);
                }
                items.push(if item == "NULL" { Value::Null } else { scalar(item, kind) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parameters_become_text() {
        for (value, text) in [
            (json!(null), None),
            (json!("x"), Some("x")),
            (json!(5), Some("5")),
            (json!(true), Some("true")),
            (json!({"a": [1]}), Some("{\"a\":[1]}")),
            (json!([1, null, "a\"\\b", [true]]), Some("{1,NULL,\"a\\\"\\\\b\",{true}}")),
        ] {
            assert_eq!(parameter(&value).as_deref(), text);
        }
    }

    #[test]
    fn values_become_json_by_their_type() {
        let of = |text: &str, oid| json(Some(text.to_owned()), oid, false);
        assert_eq!(json(None, 23, false), Value::Null);
        assert_eq!(json(Some("5".into()), 23, true), json!("5"));
        for (text, oid, value) in [
            ("t", 16, json!(true)),
            ("-5", 23, json!(-5)),
            ("9007199254740993", 20, json!("9007199254740993")),
            ("1.5", 701, json!(1.5)),
            ("NaN", 701, json!("NaN")),
            ("{\"a\":1}", 3802, json!({"a": 1})),
            ("{1,NULL,3}", 1007, json!([1, null, 3])),
            ("{}", 1007, json!([])),
            ("[0:1]={1,2}", 1007, json!([1, 2])),
            ("{{a,\"b,c\"},{\"\\\"\",NULL}}", 1009, json!([["a", "b,c"], ["\"", null]])),
            ("{\"NULL\"}", 1009, json!(["NULL"])),
            ("{\"{\\\"a\\\": 1}\"}", 3807, json!([{"a": 1}])),
            ("{broken", 1009, json!("{broken")),
        ] {
            assert_eq!(of(text, oid), value, "{text}");
        }
    }
}
