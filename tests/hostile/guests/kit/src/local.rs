//! Runs programs, opens what others sealed, asks for facts: what happens on this machine.
use crate::{Machine, Told};
use psn_plugin::bindings::imports::psn::plugin::{hub, tool, vault};

/// `tool NAME [ARGUMENT]…`, `seal TEXT CONTEXT`, `open SEALED CONTEXT`, `facts TOPIC`, and secrets.
pub fn operations(_: &mut Machine, line: &[String]) -> Option<Told> {
    let words: Vec<&str> = line.iter().map(String::as_str).collect();
    Some(match words.as_slice() {
        ["tool", name, args @ ..] => {
            let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
            match tool::run(name, &args) {
                Ok(output) => Ok(format!("{} {} {}", output.exit_code, output.stdout, output.stderr)),
                Err(e) => Err(e.code),
            }
        }
        ["seal", text, context] => vault::seal(text.as_bytes(), context).map_err(|_| "refused".to_owned()),
        ["open", sealed, context] => vault::open(sealed, context)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .map_err(|_| "refused".to_owned()),
        ["facts", topic] => hub::facts(topic).map_err(|e| e.code),
        words => return crate::secrets(words),
    })
}
