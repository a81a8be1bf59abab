//! A machine of the suite's own: a PSN_HOME, a project with a local hub, two services, and values to watch. Gone when it is dropped.
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::SuiteError;
use crate::canary::Canary;
use crate::database::Database;
use crate::judge;
use crate::listener::Listener;
use crate::process::{Ran, run};

/// How long one command of the preparations may take: the first one makes a database cluster.
const PREPARE: Duration = Duration::from_secs(120);

/// The secret of the service `web`, one that nothing was granted for, and one in psn's own environment.
const CREDENTIAL: (&str, &str) = ("HOSTILE_TOKEN", "credential-canary-1f6f8d2e55");
const UNGRANTED: (&str, &str) = ("OTHER_TOKEN", "ungranted-canary-c7720a91bb");
const ENVIRONMENT: (&str, &str) = ("HOSTILE_ENVIRONMENT", "environment-canary-0a44d3");

/// A setting, and a file outside of the project, that nobody granted.
const SETTING: (&str, &str) = ("private.note", "setting-canary-5b5e20aa");
const OUTSIDE: &str = "outside-canary-66d0f7";

pub(crate) struct World {
    root: TempDir,
    program: PathBuf,
    pub(crate) web: Listener,
    pub(crate) inside: Listener,
    pub(crate) canaries: Vec<Canary>,
    pub(crate) credential: Canary,
    pub(crate) database: Option<Database>,
}

impl World {
    /// A project that knows the services and the secrets; no hub yet.
    pub(crate) async fn new(program: &Path) -> Result<Self, SuiteError> {
        let root =
            tempfile::Builder::new().prefix("psn-hostile-").tempdir().map_err(SuiteError::io("a temporary folder"))?;
        // As root, psn runs Postgres under another account, which must be able to pass through.
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(root.path(), mode).map_err(SuiteError::io("a temporary folder"))?;
        for dir in ["home", "project", "project/config", "components"] {
            std::fs::create_dir(root.path().join(dir)).map_err(SuiteError::io(dir))?;
        }
        let web = Listener::start(true).await?;
        let inside = Listener::start(false).await?;
        // `opened` is what an operator should not do: for the control.
        let services = format!("web = \"http://{}/base\"\nopened = \"http://{}/\"\n", web.address, inside.address);
        std::fs::write(root.path().join("project/config/services.toml"), services)
            .map_err(SuiteError::io("services.toml"))?;
        std::fs::write(root.path().join("outside.txt"), OUTSIDE).map_err(SuiteError::io("outside.txt"))?;
        let named = [CREDENTIAL, UNGRANTED, ENVIRONMENT, SETTING];
        let mut canaries: Vec<Canary> = named.iter().map(|(name, value)| Canary::new(name, value)).collect();
        canaries.push(Canary::new("a file outside of the project", OUTSIDE));
        canaries.push(Canary::new("a post's content", crate::database::CONTENT));
        canaries.push(Canary::new("a person's address", crate::database::EMAIL));
        let world = Self {
            root,
            program: program.to_owned(),
            web,
            inside,
            canaries,
            credential: Canary::new(CREDENTIAL.0, CREDENTIAL.1),
            database: None,
        };
        for (name, value) in [CREDENTIAL, UNGRANTED] {
            world.keys_set(name, value).await?;
        }
        world.prepare(&["config", "set", SETTING.0, SETTING.1]).await?;
        Ok(world)
    }

    /// Starts the local hub, and watches the keys that come with it.
    pub(crate) async fn start_hub(&mut self) -> Result<(), SuiteError> {
        self.prepare(&["run", "keys"]).await?;
        self.watch("NEON_API_KEY");
        self.watch("TRIGGER_ACCESS_TOKEN");
        self.watch("HUB_ENCRYPTION_KEY");
        Ok(())
    }

    /// Makes the database, with people's rows in it.
    pub(crate) async fn make_database(&mut self) -> Result<(), SuiteError> {
        for step in ["neon-provision", "migrate"] {
            self.prepare(&["run", step]).await?;
        }
        self.watch("DATABASE_URL_DIRECT");
        let url = self.secret("DATABASE_URL_DIRECT").unwrap_or_default();
        let mut database = Database::connect(&url, &self.ca()).await?;
        database.seed().await?;
        self.database = Some(database);
        Ok(())
    }

    fn watch(&mut self, name: &str) {
        if let Some(value) = self.secret(name) {
            let secret = url::Url::parse(&value).ok().and_then(|u| u.password().map(str::to_owned)).unwrap_or(value);
            self.canaries.push(Canary::new(name, &secret));
        }
    }

    /// A command that must work before there is anything to attack.
    pub(crate) async fn prepare(&self, args: &[&str]) -> Result<Ran, SuiteError> {
        let ran = run(self.command(args), PREPARE).await?;
        if ran.code == Some(0) {
            return Ok(ran);
        }
        let words = [&ran.stdout[..], &ran.stderr[..]].concat();
        let words = String::from_utf8_lossy(&words);
        Err(SuiteError::Setup {
            command: args.join(" "),
            ended: ran.code.map_or_else(|| "a signal".to_owned(), |c| format!("code {c}")),
            words: words.lines().rev().take(6).collect::<Vec<_>>().join("\n"),
        })
    }

    async fn keys_set(&self, name: &str, value: &str) -> Result<(), SuiteError> {
        let failed = || SuiteError::io(format!("psn keys set {name}"));
        let mut command = self.command(&["keys", "set", name, "--stdin"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(failed())?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(value.as_bytes()).await.map_err(failed())?;
        }
        let status = child.wait().await.map_err(failed())?;
        if status.success() {
            return Ok(());
        }
        Err(SuiteError::Setup { command: format!("keys set {name}"), ended: status.to_string(), words: String::new() })
    }

    /// psn with these arguments, in the suite's project.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(args)
            .current_dir(self.project())
            .env("PSN_HOME", self.root.path().join("home"))
            .env(ENVIRONMENT.0, ENVIRONMENT.1);
        command
    }

    /// Runs a command and answers also the code that it ended with.
    pub(crate) async fn coded(&self, args: &[&str], within: Duration) -> Result<(Ran, String), SuiteError> {
        let ran = run(self.command(args), within).await?;
        let code = judge::code(&crate::stream::events(&ran.stdout).unwrap_or_default());
        Ok((ran, code))
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn project(&self) -> PathBuf {
        self.root.path().join("project")
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.root.path().join("home/local-hub/tls/ca.pem")
    }

    /// The value of a name in the env files.
    pub(crate) fn secret(&self, name: &str) -> Option<String> {
        ["hub.env", "keys.env"].iter().find_map(|file| {
            let text = std::fs::read_to_string(self.project().join("config").join(file)).ok()?;
            let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))?;
            Some(line.trim_matches('\'').trim_matches('"').to_owned())
        })
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // What was started goes with it; a hub that never ran says so, and that is fine.
        let mut down = std::process::Command::new(&self.program);
        down.args(["local", "down"]).current_dir(self.project()).env("PSN_HOME", self.root.path().join("home"));
        let _ = down.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}
