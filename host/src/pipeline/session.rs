//! A hub, opened for one command: its folder, its secrets, its services, its plugins.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use psn_local_hub::lifecycle::{self, DaemonCommand, Endpoints, UpOptions};

use super::environment::{Environment, Notes, http_timeout};
use super::facts::SessionFacts;
use super::home;
use super::ledger::{Ledger, LedgerError};
use super::lock::RunLock;
use crate::atomic;
use crate::capabilities::http::ServiceMap;
use crate::error::CodedError;
use crate::events::{EventSink, Level};
use crate::hub::{self, EnvFiles, FileError, HubKind, ProjectDir, ProjectError, Settings, TlsRoots};
use crate::plugins::OperatorPolicy;
use crate::plugins::registry::Registry;
use crate::redact::Redactor;
use crate::runtime::{CompileBounds, Compiler, Runtime, RuntimeOptions};
use crate::secret::{Secret, SecretBackend, SecretError, Secrets};

/// What the command line says of the hub.
pub struct OpenOptions {
    /// `--project`, else the nearest folder upwards with a `config/`.
    pub project: Option<PathBuf>,
    /// `--hub`, where it was given: see [`hub_kind`].
    pub hub: Option<HubKind>,
    /// For the run lock's holder.
    pub command: String,
    /// Lays out a config tree where there is none.
    pub create: bool,
    pub run_id: Arc<str>,
    pub redactor: Arc<Redactor>,
    pub events: EventSink,
}

/// A hub that one command works on. Holds the run lock.
pub struct Session {
    pub project: ProjectDir,
    pub kind: HubKind,
    pub environment: Environment,
    pub registry: Arc<Registry>,
    pub ledger: Ledger,
    pub local: Option<Endpoints>,
    /// The folder as the command line named it: a command that is suggested names it again.
    pub named: Option<PathBuf>,
    /// The folder had no hub before; as long as it is only looked at, it has none.
    pub is_new: bool,
    /// None where only is looked at a folder that no psn has been in.
    lock: Option<RunLock>,
}

/// What the command may do to the folder.
enum Access {
    /// Everything; a new hub gets this id, where one was planned.
    Change { hub_id: Option<String> },
    /// Nothing: keys of the local hub and the id of a new one are known to this process alone.
    Look { hub_id: Option<String> },
}

/// The name in hub.env that says which kind of hub the folder has.
pub const KIND_MARK: &str = "PSN_HUB";

/// The hub's kind: the flag, else the settings, else that of the hub that the folder has, else local.
pub fn hub_kind(flag: Option<HubKind>, settings: &Settings, mark: Option<&Secret>) -> HubKind {
    let marked = || mark.and_then(|mark| HubKind::parse(mark.expose()));
    flag.or(settings.hub_kind()).or_else(marked).unwrap_or(HubKind::Local)
}

impl Session {
    /// Opens the hub, starting the local services where they are needed.
    pub async fn open(options: OpenOptions) -> Result<Self, CodedError> {
        Self::open_for(options, Access::Change { hub_id: None }, None).await
    }

    /// To change what was looked at: nobody else changes it in between. A folder without a hub gets the one that it was looked at as.
    pub async fn open_looked_at(options: OpenOptions, looked: Session) -> Result<Self, CodedError> {
        let hub_id = Some(looked.environment.hub_id);
        Self::open_for(options, Access::Change { hub_id }, looked.lock).await
    }

    /// Opens the hub to look at it: changes nothing in the folder, and works in one without a hub too.
    pub async fn look(options: OpenOptions) -> Result<Self, CodedError> {
        Self::open_for(options, Access::Look { hub_id: None }, None).await
    }

    /// The same; a folder that has no hub yet is looked at as if it had the one with this id.
    pub async fn look_as(options: OpenOptions, hub_id: String) -> Result<Self, CodedError> {
        Self::open_for(options, Access::Look { hub_id: Some(hub_id) }, None).await
    }

    async fn open_for(options: OpenOptions, access: Access, held: Option<RunLock>) -> Result<Self, CodedError> {
        let looks = matches!(access, Access::Look { .. });
        let project = match find_project(options.project.as_deref(), options.create && !looks) {
            Err(_) if looks && options.create => ProjectDir::at(options.project.as_deref().unwrap_or(Path::new(".")))?,
            found => found?,
        };
        let untouched = looks && !project.run_lock().parent().is_some_and(Path::is_dir);
        let lock = match held {
            Some(held) => Some(held),
            None if untouched => None,
            None => Some(RunLock::acquire(&project.run_lock(), &options.command)?),
        };
        let settings = Settings::load(&project)?;
        let files = EnvFiles::new(&project);
        let backend: Box<dyn SecretBackend> = if looks { Box::new(Remembered(files)) } else { Box::new(files) };
        let secrets = Arc::new(Secrets::open(backend, Arc::clone(&options.redactor))?);
        let kind = hub_kind(options.hub, &settings, secrets.get(KIND_MARK).as_ref());
        check_kind(kind, &secrets)?;
        let is_new = !secrets.exists("PSN_HUB_ID");

        let (local, mut services, tls) = match kind {
            HubKind::Cloud => (None, ServiceMap::vendors(), TlsRoots::WebPki),
            HubKind::Local => {
                let endpoints = local_up(&options.events, false).await?;
                adopt_local_keys(&secrets)?;
                let services = ServiceMap::local(endpoints.neon.clone(), endpoints.trigger.clone());
                let tls = TlsRoots::Pem(endpoints.ca_pem.clone());
                (Some(endpoints), services, tls)
            }
        };
        for (service, base) in hub::settings::services(&project)? {
            services.set(&service, base);
        }

        let (Access::Change { hub_id: planned } | Access::Look { hub_id: planned }) = &access;
        let hub_id = hub_identity(kind, &secrets, planned.as_deref())?;
        if !looks {
            // What a killed run was writing. The lock says that no other is at it.
            let state = project.state_dir(&hub_id);
            atomic::sweep(&state).map_err(FileError::io(&state))?;
        }
        let registry = Arc::new(Registry::open(project.path(), super::FIRST_PARTY));
        let runtime = Runtime::new(RuntimeOptions {
            cache_dir: Some(home::psn_home().join("cache")),
            compiler: Compiler::this_program(compile_bounds(&registry)),
            ..RuntimeOptions::default()
        })?;
        let mut dotted = settings.to_map();
        dotted.insert("hub.kind".to_owned(), kind.as_str().to_owned());
        dotted.insert("hub.id".to_owned(), hub_id.clone());
        let facts = SessionFacts {
            project: project.clone(),
            registry: Arc::clone(&registry),
            secrets: Arc::clone(&secrets),
            tls: tls.clone(),
            hub_id: hub_id.clone(),
            kind,
            settings: dotted.clone(),
        };
        let environment = Environment {
            settings: dotted,
            secrets,
            redactor: options.redactor,
            services,
            tls,
            notes: Notes::Dir(project.state_dir(&hub_id)),
            facts: Arc::new(facts),
            cwd: project.path().to_owned(),
            runtime: Arc::new(runtime),
            events: options.events,
            run_id: options.run_id,
            hub_id,
        };
        http_timeout(&environment.settings)?;
        let ledger = match Ledger::open(&project, &environment.hub_id) {
            Err(e @ LedgerError::Damaged { .. }) if looks => return Err(e.into()),
            Err(LedgerError::Damaged { path, source }) => {
                let (ledger, kept) = Ledger::begin_anew(path)?;
                let told = format!("what setup did cannot be read ({source}); it is kept as {}", kept.display());
                environment.events.log(Level::Warn, "psn", told);
                ledger
            }
            opened => opened?,
        };
        Ok(Session { project, kind, environment, registry, ledger, local, named: options.project, is_new, lock })
    }
}

/// psn's own, where the operator's policy says nothing else. One that cannot be read stops the plugins themselves.
pub(super) fn compile_bounds(registry: &Registry) -> CompileBounds {
    let own = CompileBounds::default();
    let (wall, memory) = registry.policy().map(OperatorPolicy::compile_bounds).unwrap_or_default();
    let wall = wall.unwrap_or(own.wall);
    // All threads together may be busy for the whole of a longer time too.
    let cpu = if wall > own.wall { own.cpu.max(wall * 2) } else { own.cpu };
    CompileBounds { wall, cpu, memory: memory.unwrap_or(own.memory) }
}

/// The project's folder: named, else the nearest upwards, else, where that is allowed, made here.
pub fn find_project(named: Option<&Path>, create: bool) -> Result<ProjectDir, CodedError> {
    let here = std::env::current_dir().map_err(|e| {
        CodedError::new(
            "config.no-folder",
            format!("the current folder cannot be entered: {e}"),
            ["cd to a folder that exists"],
        )
    })?;
    let project = match named {
        Some(dir) => ProjectDir::at(dir)?,
        None => match ProjectDir::discover(&here) {
            Err(ProjectError::NotFound(_)) if create => ProjectDir::at(&here)?,
            found => found?,
        },
    };
    if create {
        project.lay_out()?;
    } else if !project.path().join("config").is_dir() {
        return Err(ProjectError::NotFound(project.path().to_owned()).into());
    }
    Ok(project)
}

/// Starts the local hub or attaches to it.
pub async fn local_up(events: &EventSink, new_ports: bool) -> Result<Endpoints, CodedError> {
    let home = home::local_hub();
    if !new_ports && let Some(running) = lifecycle::attach(&home).await.map_err(hub_error)? {
        if running.version == home::build_version() {
            return Ok(running);
        }
        events.log(Level::Info, "psn", "restarting the local hub: another build of psn started it");
    } else {
        events.log(Level::Info, "psn", "starting the local hub");
    }
    let program = std::env::current_exe().map_err(|e| {
        CodedError::new(
            "local.daemon-spawn",
            format!("psn does not find its own program: {e}"),
            ["run psn by its full path"],
        )
    })?;
    let daemon = DaemonCommand {
        program,
        args: ["local".into(), "serve".into(), "--home".into(), home.path().into()].to_vec(),
        env: vec![(home::VARIABLE.into(), home::psn_home().into())],
    };
    lifecycle::up(&home, &daemon, &UpOptions { new_ports, version: home::build_version() }).await.map_err(hub_error)
}

pub fn hub_error(e: lifecycle::HubError) -> CodedError {
    CodedError::new(e.code(), e.message(), e.fix())
}

/// A folder's env files belong to one hub: keys for Neon must never be sent to another service, nor be overwritten.
pub(super) fn check_kind(kind: HubKind, secrets: &Secrets) -> Result<(), CodedError> {
    let Some(marked) = secrets.get(KIND_MARK) else { return Ok(()) };
    if marked.expose() == kind.as_str() {
        return Ok(());
    }
    Err(CodedError::new(
        "hub.other-kind",
        format!("this folder is set up for the {} hub, and the {} hub was asked for", marked.expose(), kind.as_str()),
        [format!("psn hub use {}", kind.as_str()), format!("psn run setup --hub {}", marked.expose())],
    ))
}

/// Takes over the keys that the local services issued, as a person would paste theirs.
fn adopt_local_keys(secrets: &Secrets) -> Result<(), CodedError> {
    let issued = lifecycle::credentials(&home::local_hub()).map_err(hub_error)?;
    let pairs = [("NEON_API_KEY", issued.neon_api_key), ("TRIGGER_ACCESS_TOKEN", issued.trigger_access_token)];
    if !secrets.exists(KIND_MARK) {
        for (name, issued) in &pairs {
            if secrets.get(name).is_some_and(|kept| kept.expose() != issued) {
                return Err(CodedError::new(
                    "hub.keys-of-another",
                    format!("config/keys.env holds a {name} that the local hub did not issue; it is left alone"),
                    ["psn run setup --hub cloud", "psn hub use local"],
                ));
            }
        }
    }
    for (name, value) in pairs {
        secrets.set(name, Secret::new(value))?;
    }
    Ok(())
}

/// What is kept lives as long as the process.
struct Remembered(EnvFiles);

impl SecretBackend for Remembered {
    fn load(&self) -> Result<std::collections::BTreeMap<String, Secret>, SecretError> {
        self.0.load()
    }

    fn store(&self, _: &[(&str, &Secret)]) -> Result<(), SecretError> {
        Ok(())
    }

    fn remove(&self, _: &str) -> Result<(), SecretError> {
        Ok(())
    }
}

/// Names the hub at its first setup, and makes its key.
fn hub_identity(kind: HubKind, secrets: &Secrets, planned: Option<&str>) -> Result<String, CodedError> {
    secrets.set(KIND_MARK, Secret::new(kind.as_str()))?;
    if let Some(id) = planned.filter(|_| !secrets.exists("PSN_HUB_ID")) {
        secrets.set("PSN_HUB_ID", Secret::new(id))?;
    }
    secrets.generate("PSN_HUB_ID", HUB_ID_BYTES)?;
    secrets.generate("HUB_ENCRYPTION_KEY", HUB_KEY_BYTES)?;
    let id = secrets.get("PSN_HUB_ID").map(|s| s.expose().to_owned()).unwrap_or_default();
    if !is_hub_id(&id) {
        return Err(CodedError::new(
            "config.invalid",
            "config/hub.env: PSN_HUB_ID is not 8 hex digits",
            [
                "restore config/hub.env from a backup",
                "remove the line PSN_HUB_ID from config/hub.env to set up a new hub",
            ],
        ));
    }
    Ok(id)
}

/// As [`hub_identity`] makes them.
pub(super) fn is_hub_id(id: &str) -> bool {
    id.len() == 2 * HUB_ID_BYTES && id.bytes().all(|b| b.is_ascii_hexdigit())
}

/// 32 bits: enough to tell the hubs of one account apart by name.
const HUB_ID_BYTES: usize = 4;
/// AES-256.
const HUB_KEY_BYTES: usize = 32;
