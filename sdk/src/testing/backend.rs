//! The functions that a component imports from the host, answered by the test's [`super::Hub`].

use super::{
    Line, World,
    script::{SqlReply, one_line},
    world,
};
use crate::{
    Level,
    db::{self, RawRows, Value},
    http::{RawError, RawRequest, RawResponse},
    tool,
};

pub(crate) fn http_send(request: &RawRequest) -> Result<RawResponse, RawError> {
    world(|world| {
        assert_eq!(world.open_transactions, 0, "an HTTP call while a transaction is open: the host denies it");
        world.manifest.check_request(request);
        world.journal.push(format!("{} {} {}", request.method.as_str(), request.service, request.path));
        world.now += i64::from(world.call_takes_ms) * 1_000;
        let mut reply = world.script.http(request)?;
        for (name, value) in world.manifest.capture(request, &mut reply) {
            world.secrets.insert(name, value);
        }
        Ok(reply)
    })
}

fn sql(world: &mut World, sql: &str, params: &[Value]) -> Result<SqlReply, db::Error> {
    assert!(world.manifest.db.is_some(), "plugin.toml has no [db]: this plugin has no database role");
    world.journal.push(format!("sql {}", one_line(sql)));
    world.script.sql(sql, params)
}

pub(crate) fn db_query(text: &str, params: &[Value]) -> Result<RawRows, db::Error> {
    match world(|world| sql(world, text, params))? {
        SqlReply::Rows(rows) => Ok(rows),
        SqlReply::Affected(_) => {
            panic!("the test answers `affected` to a query: {}", one_line(text))
        }
    }
}

pub(crate) fn db_execute(text: &str, params: &[Value]) -> Result<u64, db::Error> {
    match world(|world| sql(world, text, params))? {
        SqlReply::Affected(rows) => Ok(rows),
        SqlReply::Rows(rows) => Ok(rows.rows.len() as u64),
    }
}

pub(crate) fn db_open_cursor(sql: &str, params: &[Value]) -> Result<Cursor, db::Error> {
    let RawRows { columns, rows } = db_query(sql, params)?;
    Ok(Cursor { columns, rows: std::cell::RefCell::new(rows.into_iter()) })
}

pub(crate) struct Cursor {
    columns: Vec<String>,
    rows: std::cell::RefCell<std::vec::IntoIter<Vec<Value>>>,
}

impl Cursor {
    pub(crate) fn next(&self, limit: u32) -> Result<RawRows, db::Error> {
        let rows = self.rows.borrow_mut().by_ref().take(limit as usize).collect();
        Ok(RawRows { columns: self.columns.clone(), rows })
    }
}

pub(crate) fn db_begin(as_user: Option<&str>) -> Result<Transaction, db::Error> {
    world(|world| {
        world.open_transactions += 1;
        world.journal.push(as_user.map_or("begin".into(), |user| format!("begin as {user}")));
    });
    Ok(Transaction { committed: false })
}

pub(crate) struct Transaction {
    committed: bool,
}

impl Transaction {
    pub(crate) fn query(&self, sql: &str, params: &[Value]) -> Result<RawRows, db::Error> {
        db_query(sql, params)
    }

    pub(crate) fn execute(&self, sql: &str, params: &[Value]) -> Result<u64, db::Error> {
        db_execute(sql, params)
    }

    pub(crate) fn commit(mut self) -> Result<(), db::Error> {
        self.committed = true;
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        // A test that failed meanwhile may have dropped its hub first.
        if !std::thread::panicking() {
            world(|world| {
                world.open_transactions -= 1;
                world.journal.push(if self.committed { "commit" } else { "rollback" }.into());
            });
        }
    }
}

pub(crate) fn secret_exists(name: &str) -> bool {
    secret_fingerprint(name).is_some()
}

pub(crate) fn secret_fingerprint(name: &str) -> Option<String> {
    world(|world| {
        world.manifest.check_secret(name);
        world.secrets.get(name).map(|value| fingerprint(value))
    })
}

/// FNV-1a: enough for a double, whose secrets are none.
fn fingerprint(value: &str) -> String {
    let hash = value
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}

pub(crate) fn secret_generate(name: &str, bytes: u32) -> Result<(), String> {
    world(|world| {
        world.manifest.check_generate(name);
        world.journal.push(format!("generate {name}"));
        world.secrets.entry(name.to_owned()).or_insert_with(|| "5a".repeat(bytes as usize));
    });
    Ok(())
}

pub(crate) fn state_get(key: &str) -> Option<String> {
    world(|world| world.notes.get(key).cloned())
}

pub(crate) fn state_put(key: &str, value: &str) -> Result<(), String> {
    world(|world| {
        if world.state_is_full {
            return Err("no space left on the device".into());
        }
        world.journal.push(format!("put {key}"));
        world.notes.insert(key.to_owned(), value.to_owned());
        Ok(())
    })
}

pub(crate) fn state_delete(key: &str) -> Result<(), String> {
    world(|world| {
        if world.notes.remove(key).is_some() {
            world.journal.push(format!("delete {key}"));
        }
    });
    Ok(())
}

pub(crate) fn vault_seal(plaintext: &[u8], context: &str) -> Result<String, String> {
    world(|world| world.manifest.check_context(context));
    let hex: String = plaintext.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sealed:{context}:{hex}"))
}

pub(crate) fn vault_open(sealed: &str, context: &str) -> Result<Vec<u8>, String> {
    world(|world| world.manifest.check_context(context));
    let wrong = || "it was sealed for something else".to_owned();
    let hex = sealed.strip_prefix(&format!("sealed:{context}:")).ok_or_else(wrong)?;
    let digits = hex.as_bytes().chunks_exact(2);
    digits
        .map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or_else(wrong))
        .collect()
}

pub(crate) fn tool_run(name: &str, args: &[&str]) -> Result<tool::Output, tool::Error> {
    world(|world| {
        world.manifest.check_tool(name, args);
        world.journal.push(format!("tool {name} {}", args.join(" ")));
        let mut output = world.script.tool(name, args)?;
        if output.is_success() {
            for (secret, value) in world.manifest.capture_output(name, args, &mut output.stdout) {
                world.secrets.insert(secret, value);
            }
        }
        Ok(output)
    })
}

pub(crate) fn hub_facts(topic: &str) -> Result<String, (String, String)> {
    world(|world| {
        world.manifest.check_facts(topic);
        let facts = world.facts.get(topic).map(ToString::to_string);
        facts.ok_or_else(|| ("unavailable".into(), format!("the test has no facts about {topic}")))
    })
}

pub(crate) fn run_id() -> String {
    world(|world| world.run_id.clone())
}

pub(crate) fn hub_id() -> String {
    world(|world| world.hub_id.clone())
}

pub(crate) fn attempt() -> u32 {
    1
}

pub(crate) fn setting(name: &str) -> Option<String> {
    world(|world| {
        world.manifest.check_setting(name);
        world.settings.get(name).cloned()
    })
}

pub(crate) fn now() -> i64 {
    world(|world| world.now)
}

/// Nobody waits in a test: the clock is moved on.
pub(crate) fn sleep_ms(ms: u32) {
    world(|world| {
        world.now += i64::from(ms) * 1_000;
        world.slept_ms += u64::from(ms);
    });
}

pub(crate) fn random_bytes(len: u32) -> Vec<u8> {
    (0..len).map(|index| index.to_le_bytes()[0]).collect()
}

pub(crate) fn log(level: Level, message: &str, fields: &[(&str, String)]) {
    let fields = fields.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    world(|world| world.logs.push(Line { level, message: message.to_owned(), fields }));
}

pub(crate) fn progress(done: u32, total: u32, message: &str) {
    world(|world| world.progress.push((done, total, message.to_owned())));
}
