//! Commands: they turn results into events and exit codes. Nothing else in psn writes to standard output.
mod args;
mod config;
mod consent_prompt;
mod db;
mod doctor;
mod exit;
mod keys;
mod local;
mod plan;
mod plugin;
mod posts;
mod run;
mod status;
mod task;
mod teardown;
mod view;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory as _, Parser as _};

use crate::error::CodedError;
use crate::events::{Event, EventSink, Output, SCHEMA_NAME, Summary, Unwritten};
use crate::hub::{EnvFiles, HubKind, Settings};
use crate::pipeline::session::{KIND_MARK, find_project, hub_kind};
use crate::redact::Redactor;
use crate::runtime::compile;
use crate::secret::SecretBackend as _;
use args::{Args, Command};
pub use exit::Exit;

/// What every command is given.
struct Context {
    redactor: Arc<Redactor>,
    events: EventSink,
    unwritten: Unwritten,
    run_id: Arc<str>,
    common: args::Common,
    /// As typed, for the run lock's holder. Arguments are never secrets.
    command: String,
}

/// What a command answers.
enum Done {
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

/// The whole program.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(e) => {
            // clap writes help to standard output and everything else to standard error.
            let _ = e.print();
            return if e.use_stderr() { Exit::Usage } else { Exit::Done }.into();
        }
    };
    // Before any thread is started or file opened: it gives up its rights first.
    if let Command::CompileComponent(how) = args.command {
        return compile::compile_child(compile::ChildOptions {
            parent: how.parent,
            plenty: how.plenty,
            memory: how.memory,
            cpu: how.cpu,
        });
    }
    // The provider of TLS is chosen once for the process; a second choice would be the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            let error =
                CodedError::new("run.no-runtime", format!("psn could not start its threads: {e}"), ["ulimit -a"]);
            let context = context(&args);
            context.events.emit(&Event::Error { error });
            return Exit::Failed.into();
        }
    };
    let exit = runtime.block_on(async {
        // From the first event on, an interruption is answered with one.
        let interrupted = interrupted();
        let context = context(&args);
        let exit = command(&context, args.command, interrupted).await;
        match context.unwritten.reason() {
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

async fn command(context: &Context, command: Command, interrupted: impl Future<Output = ()>) -> Exit {
    if !command.is_silent() {
        context.events.emit(&Event::Version {
            schema: SCHEMA_NAME.to_owned(),
            psn: env!("CARGO_PKG_VERSION").to_owned(),
            run: context.run_id.to_string(),
            hub: Some(hub_of(&context.common).as_str().to_owned()),
        });
    }
    let work = Box::pin(dispatch(context, command));
    let done = tokio::select! {
        done = work => done,
        () = interrupted => {
            let error = CodedError::new(
                "run.interrupted",
                "interrupted; what was done is recorded, and the same command goes on from there",
                [context.command.clone()],
            );
            context.events.emit(&Event::Error { error: error.retryable() });
            return Exit::Interrupted;
        }
    };
    match done {
        Ok(Done::Summary(summary)) => {
            let exit = Exit::of(&summary);
            context.events.emit(&Event::Summary(summary));
            exit
        }
        Ok(Done::Ok | Done::Silent) => Exit::Done,
        Ok(Done::Failed) => Exit::Failed,
        Ok(Done::NeedsPerson) => Exit::NeedsPerson,
        Err(error) => {
            let exit = Exit::of_error(&error);
            context.events.emit(&Event::Error { error });
            exit
        }
    }
}

async fn dispatch(context: &Context, command: Command) -> Result<Done, CodedError> {
    match command {
        Command::Run(run) => run::run(context, run).await,
        Command::Plan(args) => plan::plan(context, args).await,
        Command::Apply { file } => plan::apply(context, &file).await,
        Command::Status { drift: false } => status::status(context).await,
        Command::Status { drift: true } => status::drift(context).await,
        Command::Teardown { confirm } => teardown::teardown(context, confirm).await,
        Command::Posts(posts) => posts::posts(context, posts).await,
        Command::Task(task) => task::task(context, task).await,
        Command::CloudRun(run) => task::cloud_run(context, run).await,
        Command::Local(local) => local::local(context, local).await,
        Command::Keys(keys) => keys::keys(context, keys),
        Command::Db(command) => db::db(context, command).await,
        Command::Config(config) => config::config(context, config),
        Command::Hub(hub) => config::hub(context, &hub),
        Command::Plugin(plugin) => plugin::plugin(context, plugin).await,
        Command::Completions { shell } => completions(shell),
        Command::Doctor(doctor) => doctor::doctor(context, doctor).await,
        // `main` answered the second.
        Command::Schema | Command::CompileComponent(_) => schema(),
    }
}

fn context(args: &Args) -> Context {
    let redactor = Arc::new(Redactor::new());
    let stderr = std::io::stderr().is_terminal();
    let view = args.command.has_view().then(|| view::view(stderr));
    let output = Output::new(Box::new(std::io::stdout()), view, Arc::clone(&redactor));
    Context {
        unwritten: output.unwritten(),
        redactor,
        events: EventSink::new(output),
        run_id: ulid::Ulid::generate().to_string().into(),
        common: args.common.clone(),
        command: std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" "),
    }
}

/// The hub that the command is about, as far as the folder's files can be read. A problem with them is the command's to tell.
fn hub_of(common: &args::Common) -> HubKind {
    let project = find_project(common.project.as_deref(), false).ok();
    let settings = project.as_ref().and_then(|p| Settings::load(p).ok()).unwrap_or_default();
    let kept = project.and_then(|p| EnvFiles::new(&p).load().ok()).unwrap_or_default();
    hub_kind(common.hub, &settings, kept.get(KIND_MARK))
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

/// The JSON Schema of the event stream, as committed in docs/events.schema.json.
pub fn events_schema() -> serde_json::Value {
    schemars::schema_for!(Event).to_value()
}

fn schema() -> Result<Done, CodedError> {
    printed(format!("{:#}\n", events_schema()).as_bytes())
}

fn completions(shell: clap_complete::Shell) -> Result<Done, CodedError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut shown(&Args::command()), "psn", &mut script);
    printed(&script)
}

/// Without the commands that psn starts for itself.
fn shown(command: &clap::Command) -> clap::Command {
    let children = command.get_subcommands().filter(|child| !child.is_hide_set()).map(shown);
    let about = command.get_about().cloned().unwrap_or_default();
    // Names are literals; clap takes no others back. This process ends with the script.
    let name: &'static str = command.get_name().to_owned().leak();
    clap::Command::new(name).about(about).args(command.get_arguments().cloned()).subcommands(children)
}

fn printed(text: &[u8]) -> Result<Done, CodedError> {
    let mut out = std::io::stdout();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(CodedError::new("run.no-output", format!("standard output cannot be written: {e}"), ["df -h ."]))
        }
        _ => Ok(Done::Silent),
    }
}
