//! The arguments, documented where they are defined.
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

use super::cloud_run::CloudRun;
use super::compile_component::CompileComponent;
use super::posts::Posts;
use super::task::Task;
use crate::hub::HubKind;

/// Provisions and looks after your Personal Hub: a Postgres database and a task platform that publish your posts.
///
/// Standard output is NDJSON (`psn schema` prints its schema); people read standard error.
///
/// Exit codes: 0 done, 1 failed, 2 usage, 3 changes pending, 4 needs input or consent, 5 another run is at work, 130 interrupted.
#[derive(Parser)]
#[command(name = "psn", version, max_term_width = 100)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(ClapArgs, Clone)]
pub(super) struct Common {
    /// The project's folder [default: the nearest folder upwards with a config/]
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) project: Option<PathBuf>,
    /// Which hub, local or cloud [default: `hub.kind` in config/psn.toml, else local]
    #[arg(long, global = true, value_parser = hub_kind)]
    pub(super) hub: Option<HubKind>,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Sets up the hub (`psn run setup`), or runs one step or task
    Run(Run),
    /// Says what setup would change, and changes nothing; exits 3 when there is anything
    Plan(PlanArgs),
    /// Does what a plan says, unless something is different from when it was made
    Apply {
        /// Made by `psn plan setup --out FILE`
        file: PathBuf,
    },
    /// Says what was set up
    Status {
        /// Compares it with what is there now; exits 3 when something is not as setup left it
        #[arg(long)]
        drift: bool,
    },
    /// Says what of this hub psn would delete; with --confirm, deletes it
    Teardown {
        /// The hub's id, as `psn teardown` shows it
        #[arg(long, value_name = "HUB_ID")]
        confirm: Option<String>,
    },
    /// Tasks in the hub's task platform: started now or later, looked at, cancelled, run again
    #[command(subcommand)]
    Task(Task),
    /// Runs one component of a deployment's bundle, with secrets from the environment; Trigger.dev's tasks start this
    #[command(hide = true)]
    CloudRun(CloudRun),
    /// Posts: listed and shown; those that the watchdog parked, retried or ended
    Posts(Posts),
    /// The local hub: services on this machine that stand in for Neon and Trigger.dev
    #[command(subcommand)]
    Local(Local),
    /// The keys that you bring
    #[command(subcommand)]
    Keys(Keys),
    /// The hub's database: migrations, and whether its row-level security holds
    #[command(subcommand)]
    Db(Db),
    /// Settings in config/psn.toml
    #[command(subcommand)]
    Config(Config),
    /// Which hub this folder uses
    #[command(subcommand)]
    Hub(Hub),
    /// Plugins: every step and task is one
    #[command(subcommand)]
    Plugin(Plugin),
    /// Says whether this machine is fit for psn; with --hostile, whether this psn holds against plugins that attack it
    Doctor(Doctor),
    /// Prints the JSON Schema of the event stream
    Schema,
    /// Prints a script that completes psn's commands in a shell
    Completions { shell: clap_complete::Shell },
    /// Compiles a component from standard input to standard output; psn starts this for itself
    #[command(hide = true)]
    CompileComponent(CompileComponent),
}

impl Command {
    /// Whether standard output carries no events.
    pub(super) fn is_silent(&self) -> bool {
        matches!(
            self,
            Command::Schema
                | Command::Completions { .. }
                | Command::CompileComponent(_)
                | Command::Local(Local::Serve { .. })
        )
    }

    /// The hostile suite prints a table of its own.
    pub(super) fn has_view(&self) -> bool {
        !self.is_silent() && !matches!(self, Command::Doctor(Doctor { hostile: true, .. }))
    }
}

#[derive(ClapArgs)]
pub(super) struct Run {
    /// `setup`, a step (keys, neon-provision, migrate, trigger-provision, validate), or a task (watchdog, …)
    pub(super) name: String,
    /// What a task is given, as JSON
    #[arg(long, value_name = "JSON")]
    pub(super) payload: Option<String>,
    /// For the watchdog: says what it would do, and does nothing
    #[arg(long, conflicts_with = "payload")]
    pub(super) dry_run: bool,
    /// For the watchdog: says how one post is and what it would do about it, and does nothing
    #[arg(long, value_name = "POST", conflicts_with_all = ["payload", "dry_run"])]
    pub(super) explain: Option<uuid::Uuid>,
}

#[derive(ClapArgs)]
pub(super) struct PlanArgs {
    /// What is planned
    #[arg(value_parser = ["setup"])]
    pub(super) what: String,
    /// Keeps the plan in a file, for `psn apply`
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(super) enum Local {
    /// Starts it, or attaches to it
    Up {
        /// Gives every recorded port that another program holds a new number
        #[arg(long)]
        new_ports: bool,
    },
    /// Stops it
    Down,
    /// Says what is there and what runs
    Status,
    /// Deletes it, with its databases
    Reset {
        /// Says that you mean it
        #[arg(long)]
        yes: bool,
    },
    /// The last lines of its logs
    Logs {
        /// How many
        #[arg(long, default_value_t = 50)]
        lines: usize,
    },
    /// Runs the services in the foreground; `up` does this in the background
    #[command(hide = true)]
    Serve {
        #[arg(long, value_name = "DIR")]
        home: PathBuf,
    },
}

#[derive(Subcommand)]
pub(super) enum Keys {
    /// Keeps a key in config/keys.env
    Set {
        /// For example NEON_API_KEY
        name: String,
        #[command(flatten)]
        from: KeySource,
    },
    /// Takes a key out of config/keys.env or config/hub.env
    Unset { name: String },
    /// Lists the keys that are there, by fingerprint
    List,
}

/// A key is never an argument: arguments can be read by every program on the machine.
#[derive(ClapArgs)]
#[group(required = true, multiple = false)]
pub(super) struct KeySource {
    /// Reads the value from standard input
    #[arg(long)]
    pub(super) stdin: bool,
    /// Takes the value of an environment variable
    #[arg(long, value_name = "VARIABLE")]
    pub(super) from_env: Option<String>,
    /// Reads the value from a file
    #[arg(long, value_name = "FILE")]
    pub(super) from_file: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(super) enum Db {
    /// Applies what is pending of psn's migrations and of your own in migrations/, as `psn run setup` does
    Migrate,
    /// Says what is applied and what is pending; exits with 3 where something is
    Status,
    /// Writes the migration of a new table, with its row-level security, index and rights in place
    New {
        /// The table's name, for example notes
        name: String,
    },
    /// Looks whether the database keeps users apart: by its catalog, and by trying, as the real roles, in transactions that are undone
    Verify,
    /// Looks for mistakes in your migrations, without a database
    Lint {
        /// Migration files [default: all in migrations/]
        files: Vec<PathBuf>,
    },
}

#[derive(Subcommand)]
pub(super) enum Config {
    /// Sets a value, for example: psn config set neon.region aws-eu-central-1
    Set { name: String, value: String },
    /// Takes a value out
    Unset { name: String },
    /// Prints a value
    Get { name: String },
    /// Lists all values
    List,
}

#[derive(Subcommand)]
pub(super) enum Hub {
    /// Puts the other hub's keys and connections aside and takes up this one's
    Use {
        /// local or cloud
        #[arg(value_parser = hub_kind)]
        kind: HubKind,
    },
}

#[derive(Subcommand)]
pub(super) enum Plugin {
    /// Lists the plugins of this project
    List,
    /// Says what a component asks for, what config/policy.toml takes away, and whether it could be added; changes nothing
    Check { file: PathBuf },
    /// Adds a component, once a person has agreed to what it asks for: on a terminal by typing a number, else with --grant
    Add {
        file: PathBuf,
        /// The hash that the needs_consent event shows: says that a person agreed to exactly this
        #[arg(long, value_name = "HASH")]
        grant: Option<String>,
        /// Grants nothing: consent is to something, which --grant names
        #[arg(long)]
        yes: bool,
    },
    /// Says in what a plugin, or a component's file, is not what was granted; exits 4 if it is not
    Diff {
        /// A plugin's name, or a file
        #[arg(value_name = "NAME|FILE")]
        plugin: String,
    },
    /// Removes a component and what it was granted
    Remove { name: String },
}

#[derive(ClapArgs)]
pub(super) struct Doctor {
    /// Runs the hostile suite against this psn, in a hub of its own that is deleted afterwards. Exit code 0 only if every attack held.
    #[arg(long)]
    pub(super) hostile: bool,
    /// Only the attacks of this group, or whose id begins so; can be given several times
    #[arg(long, value_name = "ID", requires = "hostile")]
    pub(super) only: Vec<String>,
}

fn hub_kind(text: &str) -> Result<HubKind, String> {
    HubKind::parse(text).ok_or_else(|| "it is `local` or `cloud`".to_owned())
}
