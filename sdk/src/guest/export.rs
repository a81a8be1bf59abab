//! What the export macros call: a plugin's answers in the contract's types.

use std::{panic, sync::Once};

use crate::{
    Check, Failure, Level, Need, Report, State, Status, Step, Task,
    bindings::step::{exports::psn::plugin::lifecycle, psn::plugin::types as wit},
    bindings::task::exports::psn::plugin::runner,
    plugin::run_json,
};

/// A panic ends the component at once. Its words would be lost with it: nobody sees a guest's standard error.
fn report_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        panic::set_hook(Box::new(|panic| {
            let message = panic.payload_as_str().unwrap_or("it gave no reason");
            let place = panic.location().map(|place| format!("{}:{}", place.file(), place.line())).unwrap_or_default();
            super::log(Level::Error, &format!("The plugin panicked: {message}"), &[("at", place)]);
        }));
    });
}

pub fn inspect<T: Step>() -> Result<lifecycle::State, wit::Failure> {
    report_panics();
    T::inspect().map(Into::into).map_err(Into::into)
}

pub fn apply<T: Step>() -> Result<wit::Report, wit::Failure> {
    report_panics();
    T::apply().map(Into::into).map_err(Into::into)
}

pub fn verify<T: Step>() -> Result<wit::Report, wit::Failure> {
    report_panics();
    T::verify().map(Into::into).map_err(Into::into)
}

pub fn destroy<T: Step>() -> Result<wit::Report, wit::Failure> {
    report_panics();
    T::destroy().map(Into::into).map_err(Into::into)
}

pub fn run<T: Task>(invocation: runner::Invocation) -> Result<String, wit::Failure> {
    report_panics();
    run_json::<T>(&invocation.payload, invocation.scheduled_at).map_err(Into::into)
}

impl From<Failure> for wit::Failure {
    fn from(failure: Failure) -> Self {
        let Failure { code, message, fix, retry_after_ms } = failure.with_fix();
        Self { code, message, fix, retry_after_ms }
    }
}

impl From<State> for lifecycle::State {
    fn from(state: State) -> Self {
        match state {
            State::Ready(report) => Self::Ready(report.into()),
            State::Pending(changes) => Self::Pending(changes),
            State::Needs(needs) => Self::Needs(needs.into_iter().map(Into::into).collect()),
        }
    }
}

impl From<Need> for wit::Need {
    fn from(Need { name, secret, origin, choices }: Need) -> Self {
        Self { name, secret, origin, choices }
    }
}

impl From<Report> for wit::Report {
    fn from(Report { message, data, checks }: Report) -> Self {
        Self { message, data: data.to_string(), checks: checks.into_iter().map(Into::into).collect() }
    }
}

impl From<Check> for wit::Check {
    fn from(Check { name, status, message, fix, required }: Check) -> Self {
        let status = match status {
            Status::Pass => wit::CheckStatus::Pass,
            Status::Warn => wit::CheckStatus::Warn,
            Status::Fail => wit::CheckStatus::Fail,
            Status::Skip => wit::CheckStatus::Skip,
        };
        Self { name, status, message, fix, required }
    }
}
