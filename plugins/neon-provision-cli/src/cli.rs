//! Neon's CLI. It ends with 1 whatever went wrong, and its words are for people: so a question that failed is asked again, and
//! whether a creation was done is looked up. It does not say which projects Neon could not look at.

use psn_neon_step::{
    Created, Database, Endpoint, Kept, Key, Neon, Operation, Organization, Project, Search, Trouble, Wish,
};
use psn_plugin::{prelude::*, tool};
use serde::de::DeserializeOwned;

const PROGRAM: &str = "neon";
/// Without telemetry, in a form that can be read.
const COMMON: [&str; 4] = ["--no-analytics", "--no-color", "--output", "json"];
/// Milliseconds before a question that failed is asked again. The CLI itself gives up on 429 and 503 at once.
const PAUSES_MS: [u32; 3] = [1_000, 3_000, 8_000];
/// Lines of what the CLI says that go into an error.
const LAST_WORDS: usize = 3;
/// Milliseconds after which another run is worth while.
const RETRY_MS: u64 = 30_000;

pub(crate) struct Cli;

/// One run, and what went wrong.
fn run(args: &[&str]) -> Result<String, Trouble> {
    let all: Vec<&str> = args.iter().copied().chain(COMMON).collect();
    let output = tool::run(PROGRAM, &all).map_err(|error| {
        let unsure = !matches!(error.code.as_str(), "missing" | "denied");
        Trouble { message: error.message.clone(), failure: error.into(), status: None, unsure }
    })?;
    if output.is_success() {
        return Ok(output.stdout);
    }
    let message = output.last_words(LAST_WORDS);
    let failure = Failure::new("neon-cli-failed", format!("neon {} failed: {message}", args[..2].join(" ")))
        .fix("Do what the CLI says, then: psn run neon-provision")
        .fix("If it is the key that Neon rejects: psn keys set NEON_API_KEY --stdin")
        .retry_after_ms(RETRY_MS);
    Err(Trouble { failure, message, status: None, unsure: true })
}

/// A question changes nothing, so it can be asked again.
fn ask(args: &[&str]) -> Result<String, Trouble> {
    for pause in PAUSES_MS {
        match run(args) {
            Err(trouble) if trouble.unsure => context::sleep_ms(pause),
            ended => return ended,
        }
    }
    run(args)
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, Trouble> {
    serde_json::from_str(text).map_err(|error| {
        let failure = Failure::new("reply-not-understood", format!("The neon CLI printed something else: {error}"))
            .fix("npm install --global neon@6.2.3");
        Trouble { message: failure.message.clone(), failure, status: None, unsure: true }
    })
}

fn list<T: DeserializeOwned>(args: &[&str]) -> Result<Vec<T>, Trouble> {
    read(&ask(args)?)
}

fn projects(org_id: Option<&str>, deleted: bool) -> Result<Vec<Project>, Trouble> {
    /// What is listed where no organization is named.
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Listed {
        Array(Vec<Project>),
        Object { projects: Vec<Project> },
    }
    let mut args = vec!["projects", "list"];
    if let Some(org_id) = org_id {
        args.extend(["--org-id", org_id]);
    }
    if deleted {
        args.push("--recoverable-only");
    }
    match read(&ask(&args)?)? {
        Listed::Array(projects) | Listed::Object { projects } => Ok(projects),
    }
}

/// The arguments for what is known of one connection: `connection-string` has it kept, its alias `cs` does not.
fn connection<'a>(command: &'a str, project: &'a str, database: &'a Database, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec![command, "--project-id", project, "--role-name", &database.owner_name];
    args.extend(["--database-name", &database.name]);
    args.extend(more);
    args
}

impl Neon for Cli {
    fn key(&self) -> Result<Key, Trouble> {
        // An organization's key may not ask for organizations, and lists its projects without naming one.
        match run(&["orgs", "list"]) {
            Ok(text) => Ok(Key::Person(read::<Vec<Organization>>(&text)?)),
            Err(trouble) if !trouble.unsure => Err(trouble),
            Err(_) => match projects(None, false) {
                Ok(_) => Ok(Key::Organization),
                Err(_) => Ok(Key::Person(list(&["orgs", "list"])?)),
            },
        }
    }

    fn regions(&self) -> Result<Vec<String>, Trouble> {
        Ok(Vec::new())
    }

    fn search(&self, text: &str, org_id: Option<&str>, deleted: bool) -> Result<Search, Failure> {
        let mut found = projects(org_id, deleted)?;
        found.retain(|project| project.name.contains(text));
        Ok(Search::Complete(found))
    }

    fn visible(&self) -> Result<Vec<Project>, Trouble> {
        match self.key()? {
            Key::Organization => projects(None, false),
            Key::Person(organizations) => {
                let mut all = Vec::new();
                for organization in organizations {
                    all.extend(projects(Some(&organization.id), false)?);
                }
                Ok(all)
            }
        }
    }

    fn project(&self, id: &str) -> Result<Option<Project>, Trouble> {
        let trouble = match run(&["projects", "get", id]) {
            Ok(text) => return Ok(Some(read(&text)?).filter(|project: &Project| project.deleted_at.is_none())),
            Err(trouble) if !trouble.unsure => return Err(trouble),
            Err(trouble) => trouble,
        };
        // "It failed" does not say that it is not there; a list without it does.
        match self.visible()?.into_iter().find(|project| project.id == id) {
            None => Ok(None),
            Some(_) => Err(trouble),
        }
    }

    fn create(&self, wish: &Wish) -> Result<Created, Trouble> {
        #[derive(serde::Deserialize)]
        struct Reply {
            project: Project,
        }
        let version = wish.pg_version.map(|version| version.to_string());
        let mut args = vec!["projects", "create", "--no-secrets", "--name", &wish.name];
        args.extend(["--database", &wish.database, "--role", &wish.role]);
        for (option, value) in [("--org-id", &wish.org_id), ("--region-id", &wish.region), ("--pg-version", &version)] {
            if let Some(value) = value {
                args.extend([option, value]);
            }
        }
        // The CLI does not wait for the operations, and does not name them either.
        let Reply { project } = read(&run(&args)?)?;
        Ok(Created { project, operations: Vec::new() })
    }

    fn recover(&self, id: &str) -> Result<(), Trouble> {
        run(&["projects", "recover", id]).map(drop)
    }

    fn delete(&self, id: &str) -> Result<Option<String>, Trouble> {
        match run(&["projects", "delete", id]) {
            Ok(text) => {
                let project: Project = read(&text)?;
                Ok(Some(project.recoverable_until.unwrap_or_else(|| "the end of Neon's recovery time".into())))
            }
            Err(trouble) => match self.project(id)? {
                None => Ok(None),
                Some(_) => Err(trouble),
            },
        }
    }

    fn databases(&self, project: &str) -> Result<Vec<Database>, Trouble> {
        list(&["databases", "list", "--project-id", project])
    }

    fn endpoint(&self, project: &str, database: &Database) -> Result<Option<Endpoint>, Trouble> {
        #[derive(serde::Deserialize)]
        struct Connection {
            host: String,
        }
        // Any database has the same host; the CLI wants one that is there.
        let databases = self.databases(project)?;
        let there = databases.iter().find(|one| one.name == database.name).or(databases.first());
        let Some(there) = there else { return Ok(None) };
        let Connection { host } = read(&ask(&connection("cs", project, there, &["--extended"]))?)?;
        Ok(Some(Endpoint { id: host.clone(), host, disabled: false }))
    }

    fn operations(&self, project: &str) -> Result<Vec<Operation>, Trouble> {
        list(&["operations", "list", "--project-id", project])
    }

    fn operation(&self, project: &str, id: &str) -> Result<Option<Operation>, Trouble> {
        Ok(self.operations(project)?.into_iter().find(|operation| operation.id == id))
    }

    /// The CLI has no command for it.
    fn reset_password(&self, _: &str, role: &str) -> Result<Vec<Operation>, Trouble> {
        let message = format!(
            "The database refuses {role} with the password that Neon knows, and Neon's CLI cannot make a new one"
        );
        let failure = Failure::new("password-refused", message.clone())
            .fix("psn config set steps.neon-provision neon-provision")
            .fix("psn run setup");
        Err(Trouble { failure, message, status: None, unsure: false })
    }

    fn keep_connection_strings(&self, project: &str, database: &Database) -> Result<Kept, Trouble> {
        if !self.databases(project)?.iter().any(|one| one.name == database.name) {
            return Ok(Kept::NoSuchDatabase);
        }
        for more in [&["--pooled", "--extended"][..], &["--extended"]] {
            ask(&connection("connection-string", project, database, more))?;
        }
        Ok(Kept::Yes)
    }
}
