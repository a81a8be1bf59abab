//! The whole program: every command, and which answers what.
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory as _, Parser as _};

use super::args::{self, Args, Command};
use super::process::{self, Done, Process, Start};
use super::{cloud_run, config, db, doctor, keys, local, plan, plugin, posts, run, status, task, teardown};
use crate::error::CodedError;
use crate::events::{Event, EventSink};
use crate::hub::{EnvFiles, HubKind, Settings};
use crate::pipeline::session::{KIND_MARK, find_project, hub_kind};
use crate::redact::Redactor;
use crate::secret::SecretBackend as _;

/// What every command about a hub is given.
pub(super) struct Context {
    pub(super) redactor: Arc<Redactor>,
    pub(super) events: EventSink,
    pub(super) run_id: Arc<str>,
    pub(super) common: args::Common,
    /// As typed, for the run lock's holder. Arguments are never secrets.
    pub(super) command: String,
}

/// From the arguments to the exit code.
pub fn main() -> ExitCode {
    let Args { common, command } = match Args::try_parse() {
        Ok(args) => args,
        Err(e) => return process::said(&e),
    };
    match command {
        Command::CompileComponent(how) => how.run(),
        Command::CloudRun(run) => cloud_run::main(run),
        command => {
            let start =
                Start { is_silent: command.is_silent(), has_view: command.has_view(), hub: hub_of(&common).as_str() };
            process::run(&start, async |process| dispatch(&context(process, common), command).await)
        }
    }
}

fn context(process: &Process, common: args::Common) -> Context {
    Context {
        redactor: Arc::clone(&process.redactor),
        events: process.events.clone(),
        run_id: Arc::clone(&process.run_id),
        common,
        command: process.command.clone(),
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
        // `main` answered these.
        Command::CloudRun(_) | Command::CompileComponent(_) => Ok(Done::Silent),
        Command::Local(local) => local::local(context, local).await,
        Command::Keys(keys) => keys::keys(context, keys),
        Command::Db(command) => db::db(context, command).await,
        Command::Config(config) => config::config(context, config),
        Command::Hub(hub) => config::hub(context, &hub),
        Command::Plugin(plugin) => plugin::plugin(context, plugin).await,
        Command::Completions { shell } => completions(shell),
        Command::Doctor(doctor) => doctor::doctor(context, doctor).await,
        Command::Schema => schema(),
    }
}

/// The hub that the command is about, as far as the folder's files can be read. A problem with them is the command's to tell.
fn hub_of(common: &args::Common) -> HubKind {
    let project = find_project(common.project.as_deref(), false).ok();
    let settings = project.as_ref().and_then(|p| Settings::load(p).ok()).unwrap_or_default();
    let kept = project.and_then(|p| EnvFiles::new(&p).load().ok()).unwrap_or_default();
    hub_kind(common.hub, &settings, kept.get(KIND_MARK))
}

/// How people see the answer of a command, where it has a form of its own.
pub(super) fn shown(command: &str, data: &serde_json::Value) -> Option<Vec<String>> {
    if command.starts_with(task::COMMAND) {
        Some(task::lines(data))
    } else if command.starts_with(posts::COMMAND) {
        Some(posts::lines(data))
    } else {
        None
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
    clap_complete::generate(shell, &mut visible(&Args::command()), "psn", &mut script);
    printed(&script)
}

/// Without the commands that psn starts for itself.
fn visible(command: &clap::Command) -> clap::Command {
    let children = command.get_subcommands().filter(|child| !child.is_hide_set()).map(visible);
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
