//! A command's process from start to end, of psn and of its worker: threads, signals, the first and the last event, the exit code.
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use super::exit::Exit;
use super::view;
use crate::error::CodedError;
use crate::events::{Event, EventSink, Output, SCHEMA_NAME, Summary, Unwritten};
use crate::redact::Redactor;

/// What every command is given.
pub(super) struct Process {
    pub(super) redactor: Arc<Redactor>,
    pub(super) events: EventSink,
    unwritten: Unwritten,
    pub(super) run_id: Arc<str>,
    /// As typed, for the run lock's holder. Arguments are never secrets.
    pub(super) command: String,
}

/// How it is to be run.
pub(super) struct Start {
    /// Whether standard output carries no events.
    pub(super) is_silent: bool,
    /// Whether people see the events on standard error.
    pub(super) has_view: bool,
    /// Which kind of hub it is about.
    pub(super) hub: &'static str,
}

/// What a command answers.
#[cfg_attr(not(feature = "full"), allow(dead_code, reason = "psn's worker runs steps, and nothing else"))]
pub(super) enum Done {
    /// Steps ran.
    Summary(Summary),
    /// It answered with a result event, or had nothing to say.
    Ok,
    /// It answered, and the answer is that something is wrong.
    Failed,
    /// It answered, and someone has to agree to something before it goes on.
    NeedsPerson,
    /// It wrote to standard output in another form, by its own definition (`--help`, a schema).
    Silent,
}

/// Runs one command. From here on, an interruption is answered with an event.
pub(super) fn run(start: &Start, work: impl AsyncFnOnce(&Process) -> Result<Done, CodedError>) -> ExitCode {
    // The provider of TLS is chosen once for the process; a second choice would be the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            let error =
                CodedError::new("run.no-runtime", format!("psn could not start its threads: {e}"), ["ulimit -a"]);
            Process::new(start).events.emit(&Event::Error { error });
            return Exit::Failed.into();
        }
    };
    let exit = runtime.block_on(async {
        // From the first event on, an interruption is answered with one.
        let interrupted = interrupted();
        let process = Process::new(start);
        let exit = command(&process, start, work, interrupted).await;
        match process.unwritten.reason() {
            Some(e) => {
                let _ = writeln!(std::io::stderr(), "psn: events were lost: standard output cannot be written: {e}");
                exit.or_failed()
            }
            None => exit,
        }
    });
    // Background work (a lookup that hangs, say) must not hold up the end.
    runtime.shutdown_background();
    exit.into()
}

impl Process {
    fn new(start: &Start) -> Self {
        let redactor = Arc::new(Redactor::new());
        let view = start.has_view.then(|| view::view(std::io::stderr().is_terminal()));
        let output = Output::new(Box::new(std::io::stdout()), view, Arc::clone(&redactor));
        Self {
            unwritten: output.unwritten(),
            redactor,
            events: EventSink::new(output),
            run_id: ulid::Ulid::generate().to_string().into(),
            command: std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" "),
        }
    }
}

async fn command(
    process: &Process,
    start: &Start,
    work: impl AsyncFnOnce(&Process) -> Result<Done, CodedError>,
    interrupted: impl Future<Output = ()>,
) -> Exit {
    if !start.is_silent {
        process.events.emit(&Event::Version {
            schema: SCHEMA_NAME.to_owned(),
            psn: env!("CARGO_PKG_VERSION").to_owned(),
            run: process.run_id.to_string(),
            hub: Some(start.hub.to_owned()),
        });
    }
    let work = Box::pin(work(process));
    let done = tokio::select! {
        done = work => done,
        () = interrupted => {
            let error = CodedError::new(
                "run.interrupted",
                "interrupted; what was done is recorded, and the same command goes on from there",
                [process.command.clone()],
            );
            process.events.emit(&Event::Error { error: error.retryable() });
            return Exit::Interrupted;
        }
    };
    match done {
        Ok(Done::Summary(summary)) => {
            let exit = Exit::of(&summary);
            process.events.emit(&Event::Summary(summary));
            exit
        }
        Ok(Done::Ok | Done::Silent) => Exit::Done,
        Ok(Done::Failed) => Exit::Failed,
        Ok(Done::NeedsPerson) => Exit::NeedsPerson,
        Err(error) => {
            let exit = Exit::of_error(&error);
            process.events.emit(&Event::Error { error });
            exit
        }
    }
}

/// What clap has to say, where it does not say what to run. It writes help to standard output and everything else to standard error.
pub(super) fn said(e: &clap::Error) -> ExitCode {
    let _ = e.print();
    if e.use_stderr() { Exit::Usage } else { Exit::Done }.into()
}

/// Ctrl-C, or the SIGTERM of whoever started psn: caught from here on, not from when it is first waited for.
fn interrupted() -> impl Future<Output = ()> {
    use tokio::signal::unix::{Signal, SignalKind, signal};
    async fn received(signal: &mut std::io::Result<Signal>) {
        match signal {
            Ok(signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    }
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    async move {
        tokio::select! {
            () = received(&mut interrupt) => {}
            () = received(&mut terminate) => {}
        }
    }
}
