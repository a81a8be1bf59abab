//! Sends SQL of every kind.
use std::cell::RefCell;

use crate::{Machine, Told, hold};
use psn_plugin::bindings::imports::psn::plugin::db::{self, Value};

thread_local! {
    static OPEN: RefCell<Option<db::Transaction>> = const { RefCell::new(None) };
}

/// `query SQL [PARAMETER]…`, `execute …`, `cursor …`; `begin [USER]`, `tquery …`, `texecute …`, `commit`, `drop`, `leak`.
pub fn operations(_: &mut Machine, line: &[String]) -> Option<Told> {
    let words: Vec<&str> = line.iter().map(String::as_str).collect();
    Some(match words.as_slice() {
        ["query", sql, rest @ ..] => db::query(sql, &values(rest)).map(|rows| shown(&rows)).map_err(code),
        ["execute", sql, rest @ ..] => db::execute(sql, &values(rest)).map(|n| n.to_string()).map_err(code),
        ["cursor", sql, rest @ ..] => match db::open_cursor(sql, &values(rest)) {
            Ok(cursor) => {
                let mut rows = 0;
                let told = loop {
                    match cursor.next(u32::MAX) {
                        Ok(batch) if batch.rows.is_empty() => break Ok(rows.to_string()),
                        Ok(batch) => rows += batch.rows.len(),
                        Err(e) => break Err(code(e)),
                    }
                };
                hold(cursor);
                told
            }
            Err(e) => Err(code(e)),
        },
        ["begin", user @ ..] => match db::begin(user.first().copied()) {
            Ok(transaction) => {
                OPEN.set(Some(transaction));
                Ok(String::new())
            }
            Err(e) => Err(code(e)),
        },
        ["leak"] => match db::begin(None) {
            Ok(transaction) => {
                hold(transaction);
                Ok(String::new())
            }
            Err(e) => Err(code(e)),
        },
        ["tquery", sql, rest @ ..] => with_open(|t| t.query(sql, &values(rest)).map(|rows| shown(&rows)).map_err(code)),
        ["texecute", sql, rest @ ..] => {
            with_open(|t| t.execute(sql, &values(rest)).map(|n| n.to_string()).map_err(code))
        }
        ["commit"] => match OPEN.take() {
            Some(transaction) => db::Transaction::commit(transaction).map(|()| String::new()).map_err(code),
            None => Err("none".to_owned()),
        },
        ["drop"] => {
            OPEN.set(None);
            Ok(String::new())
        }
        _ => return None,
    })
}

fn with_open(go: impl FnOnce(&db::Transaction) -> Told) -> Told {
    OPEN.with_borrow(|open| open.as_ref().map_or_else(|| Err("none".to_owned()), go))
}

fn code(e: db::Error) -> String {
    e.sqlstate.unwrap_or(e.code)
}

/// A prefix says of what kind a value is; without one it is text.
fn values(words: &[&str]) -> Vec<Value> {
    words
        .iter()
        .map(|word| match word.split_once(':') {
            Some(("int", n)) => Value::Int64(n.parse().unwrap_or(i64::MAX)),
            Some(("float", n)) => Value::Float64(n.parse().unwrap_or(f64::NAN)),
            Some(("time", n)) => Value::Timestamp(n.parse().unwrap_or(i64::MAX)),
            Some(("uuid", text)) => Value::Uuid(text.to_owned()),
            Some(("json", text)) => Value::Json(text.to_owned()),
            Some(("bytes", text)) => Value::Bytes(text.as_bytes().to_vec()),
            Some(("null", "")) => Value::Null,
            _ => Value::Text((*word).to_owned()),
        })
        .collect()
}

fn shown(rows: &db::Rows) -> String {
    let rows = rows.rows.iter().take(100);
    rows.map(|row| {
        let row = row.iter().map(|value| match value {
            Value::Null => "null".to_owned(),
            Value::Boolean(v) => v.to_string(),
            Value::Int64(v) | Value::Timestamp(v) => v.to_string(),
            Value::Float64(v) => v.to_string(),
            Value::Text(v) | Value::Uuid(v) | Value::Json(v) => v.clone(),
            Value::Bytes(v) => String::from_utf8_lossy(v).into_owned(),
        });
        row.collect::<Vec<_>>().join(" | ")
    })
    .collect::<Vec<_>>()
    .join("\n")
}
