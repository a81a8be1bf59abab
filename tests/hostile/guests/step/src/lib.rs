//! A setup step whose answers are the attack.
#![cfg(target_family = "wasm")]
// The export macro of the bindings.
#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};

use psn_hostile_kit::{End, Machine, Told, perform};
use psn_plugin::__private::bindings::step as world;
use world::exports::psn::plugin::lifecycle::State;
use world::psn::plugin::types::{Check, CheckStatus, Failure, Need, Report};

thread_local! {
    static ANSWER: RefCell<Option<State>> = const { RefCell::new(None) };
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

/// `need NAME ORIGIN [CHOICE]…`, `pending CHANGE…`, `report MESSAGE DATA`, `check NAME MESSAGE FIX…`; each is inspect's answer.
fn operations(_: &mut Machine, line: &[String]) -> Option<Told> {
    let report = |message: &str, data: &str, checks| {
        State::Ready(Report { message: message.to_owned(), data: data.to_owned(), checks })
    };
    let answer = match line {
        [op, name, origin, choices @ ..] if op == "need" => State::Needs(vec![Need {
            name: name.clone(),
            secret: true,
            origin: origin.clone(),
            choices: choices.to_vec(),
        }]),
        [op, changes @ ..] if op == "pending" => State::Pending(changes.to_vec()),
        [op, message, data] if op == "report" => report(message, data, Vec::new()),
        [op, name, message, fix @ ..] if op == "check" => {
            let check = Check {
                name: name.clone(),
                status: CheckStatus::Warn,
                message: message.clone(),
                fix: fix.to_vec(),
                required: false,
            };
            report("checked", "{}", vec![check])
        }
        _ => return None,
    };
    ANSWER.set(Some(answer));
    Some(Ok(String::new()))
}

struct Component;

impl world::exports::psn::plugin::lifecycle::Guest for Component {
    fn inspect() -> Result<State, Failure> {
        CALLS.set(CALLS.get() + 1);
        match perform(operations).answer() {
            End::Failure { code, message, fix } => Err(Failure { code, message, fix, retry_after_ms: None }),
            End::Answer(data) => Ok(ANSWER
                .take()
                .unwrap_or_else(|| State::Ready(Report { message: "performed".to_owned(), data, checks: Vec::new() }))),
        }
    }

    /// Says so if anything of an earlier call is left.
    fn apply() -> Result<Report, Failure> {
        let message = if CALLS.get() == 0 { "applied" } else { "carried-over" };
        Ok(Report { message: message.to_owned(), data: String::new(), checks: Vec::new() })
    }

    fn verify() -> Result<Report, Failure> {
        Self::apply()
    }

    fn destroy() -> Result<Report, Failure> {
        Self::apply()
    }
}

world::export_world!(Component with_types_in psn_plugin::__private::bindings::step);
