//! What plugins can learn of the hub: the answers to `hub.facts`.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::cloud_project::{CloudProject, Program, ProgramFacts, hourly, runtime_of};
use super::component_store::reference;
use super::environment::needed_variables;
use super::session::compile_bounds;
use crate::capabilities::Deadline;
use crate::capabilities::hub_facts::{FactError, FactSource};
use crate::error::CodedError;
use crate::hub::{self, HubKind, ProjectDir, Purpose, Settings, TlsRoots};
use crate::plugins::manifest::parse_duration;
use crate::plugins::registry::{Installed, Registry};
use crate::runtime::Compiler;
use crate::secret::Secrets;

/// How long the host itself looks into the database for one answer.
const DATABASE_LIMIT: Duration = Duration::from_secs(30);
/// One login, with a suspended compute's start before it. Where it takes longer, whoever needs the database waits and says why.
const LOGIN_LIMIT: Duration = Duration::from_secs(10);

/// The facts of a hub whose folder is on this machine.
pub(super) struct SessionFacts {
    pub(super) project: ProjectDir,
    pub(super) registry: Arc<Registry>,
    pub(super) secrets: Arc<Secrets>,
    pub(super) tls: TlsRoots,
    pub(super) hub_id: String,
    pub(super) kind: HubKind,
    pub(super) settings: BTreeMap<String, String>,
}

/// The setting `trigger.deploy`: `cli` deploys to the local hub in the way of the cloud.
pub const DEPLOY: &str = "trigger.deploy";

/// How the tasks come to where they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deploys {
    /// The local hub runs components as they are, and is told about them.
    Directly,
    /// Trigger.dev's own CLI bundles and uploads a project.
    ByCli,
}

impl Deploys {
    pub(super) fn of(kind: HubKind, settings: &BTreeMap<String, String>) -> Result<Self, CodedError> {
        match (kind, settings.get(DEPLOY).map(String::as_str)) {
            (HubKind::Cloud, None | Some("cli")) | (HubKind::Local, Some("cli")) => Ok(Self::ByCli),
            (HubKind::Local, None | Some("direct")) => Ok(Self::Directly),
            (kind, Some(other)) => Err(CodedError::new(
                "config.settings",
                format!("config/psn.toml: {DEPLOY}: the {} hub cannot be deployed to by `{other}`", kind.as_str()),
                [format!("psn config set {DEPLOY} cli")],
            )),
        }
    }
}

/// The project that the CLI deploys.
pub(super) fn cloud_project(
    registry: &Registry,
    project: &ProjectDir,
    settings: &BTreeMap<String, String>,
) -> Result<CloudProject, CodedError> {
    let runtime = runtime_of(settings)?;
    let program = Program::choose(project.path(), settings)?;
    let compiler = Compiler::this_program(compile_bounds(registry));
    CloudProject::new(&registry.tasks()?, registry.policy()?, runtime, program, &compiler)
}

/// The program that is deployed with the tasks; none where they are not deployed so.
pub fn deployed_program(
    project: &ProjectDir,
    kind: HubKind,
    settings: &Settings,
) -> Result<Option<ProgramFacts>, CodedError> {
    let settings = settings.to_map();
    match Deploys::of(kind, &settings)? {
        Deploys::Directly => Ok(None),
        Deploys::ByCli => Ok(Some(Program::choose(project.path(), &settings)?.facts())),
    }
}

/// The same, of a folder whose hub is not opened.
pub fn exported(project: &ProjectDir) -> Result<CloudProject, CodedError> {
    let settings = Settings::load(project)?.to_map();
    cloud_project(&Registry::open(project.path(), super::FIRST_PARTY), project, &settings)
}

#[async_trait::async_trait]
impl FactSource for SessionFacts {
    async fn facts(&self, topic: &str) -> Result<Value, FactError> {
        match topic {
            "config-tree" => blocking(&self.project, ProjectDir::tree_facts).await,
            "git" => blocking(&self.project, ProjectDir::git_facts).await,
            "migrations" => self.migrations().await,
            "catalog" => self.catalog().await,
            "owner-login" => Ok(self.owner_login().await),
            "tasks" => self.tasks().await,
            _ => Err(FactError::Unknown),
        }
    }
}

impl SessionFacts {
    /// Whether the database lets the owner in with what is kept. `unknown` is also a database that does not answer.
    async fn owner_login(&self) -> Value {
        let deadline = Deadline::after(LOGIN_LIMIT);
        let owner = match hub::connect(&Purpose::OwnerDirect, &self.secrets, &self.tls, deadline).await {
            Ok(connection) => {
                // It was only to see whether logging in works.
                let _ = sqlx::Connection::close(connection).await;
                "accepted"
            }
            Err(e) if e.is_auth() => "refused",
            Err(_) => "unknown",
        };
        json!({ "owner": owner })
    }

    async fn tasks(&self) -> Result<Value, FactError> {
        let mut facts = task_facts(&self.registry.tasks().map_err(unavailable)?, &self.hub_id);
        let deploys = Deploys::of(self.kind, &self.settings).map_err(|e| unavailable(e.message))?;
        facts["deploy"] = json!(if deploys == Deploys::ByCli { "cli" } else { "direct" });
        if deploys == Deploys::ByCli {
            let (registry, project, settings) =
                (Arc::clone(&self.registry), self.project.clone(), self.settings.clone());
            // Tens of megabytes are read and hashed, and tasks compiled.
            let hash = tokio::task::spawn_blocking(move || {
                cloud_project(&registry, &project, &settings).map(|project| project.content_hash())
            });
            let hash = hash.await.map_err(unavailable)?.map_err(|e| unavailable(e.message))?;
            facts["content_hash"] = json!(hash);
        }
        Ok(facts)
    }

    async fn migrations(&self) -> Result<Value, FactError> {
        let manifests = self.registry.manifests().map_err(unavailable)?;
        let deadline = Deadline::after(DATABASE_LIMIT);
        let migrations = hub::Migrations::load(&self.project).map_err(unavailable)?;
        let facts = hub::inspect_migrations(&migrations, &self.secrets, &self.tls, &manifests, deadline)
            .await
            .map_err(unavailable)?;
        Ok(facts.to_json())
    }

    async fn catalog(&self) -> Result<Value, FactError> {
        let deadline = Deadline::after(DATABASE_LIMIT);
        let checks = hub::inspect_catalog(&self.secrets, &self.tls, deadline).await.map_err(unavailable)?;
        let checks: Vec<Value> = checks
            .iter()
            .map(|c| json!({ "name": c.check, "status": c.status, "message": c.message, "fix": c.fix, "required": c.required }))
            .collect();
        Ok(json!({ "checks": checks }))
    }
}

async fn blocking(
    project: &ProjectDir,
    look: impl FnOnce(&ProjectDir) -> Value + Send + 'static,
) -> Result<Value, FactError> {
    let project = project.clone();
    tokio::task::spawn_blocking(move || look(&project)).await.map_err(unavailable)
}

fn unavailable(e: impl std::fmt::Display) -> FactError {
    FactError::Unavailable(e.to_string())
}

/// What is to be deployed: the tasks with their schedules and limits, from the manifests, and the variables that they need.
/// The content hash covers all of it, so that an unchanged hub is not deployed again.
pub(super) fn task_facts(tasks: &[Arc<Installed>], hub_id: &str) -> Value {
    let mut env: Vec<String> = Vec::new();
    let listed: Vec<Value> = tasks
        .iter()
        .map(|installed| {
            let manifest = &installed.manifest;
            env.extend(needed_variables(manifest));
            let task = manifest.task.clone().unwrap_or_default();
            let seconds = task.max_duration.as_deref().and_then(parse_duration).map(|d| d.as_secs().max(1));
            json!({
                "id": manifest.task_id(),
                "file_path": reference(installed),
                "cron": task.cron,
                "hourly": task.cron.as_deref().and_then(hourly),
                "timezone": task.timezone.as_deref().unwrap_or("UTC"),
                "max_duration_s": seconds,
                "queue": task.queue,
                "retry": task.retry.as_ref().map(|r| json!({
                    "maxAttempts": r.max_attempts,
                    "minTimeoutInMs": r.min.as_deref().and_then(parse_duration).map(|d| d.as_millis() as u64),
                    "maxTimeoutInMs": r.max.as_deref().and_then(parse_duration).map(|d| d.as_millis() as u64),
                    "factor": r.factor,
                    "randomize": r.jitter,
                })),
            })
        })
        .collect();
    env.sort();
    env.dedup();
    let plain = json!({ "PSN_HUB_ID": hub_id });
    let content = json!({ "tasks": listed, "env": env, "plain_env": plain });
    let content_hash = hex::encode(Sha256::digest(content.to_string().as_bytes()));
    json!({ "content_hash": content_hash, "tasks": listed, "env": env, "plain_env": plain })
}
