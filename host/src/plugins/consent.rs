//! What a plugin asks for, in words a person can judge, and what it takes to grant it.
use sha2::{Digest, Sha256};

use super::component::Described;
use super::lock::LockDifference;
use super::manifest::{Auth, DbGrant, Manifest, WITHHELD, World};

/// Someone has to agree before this component may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsentNeeded {
    pub name: String,
    pub version: String,
    /// Hex SHA-256 of the component.
    pub sha256: String,
    pub capabilities_hash: String,
    /// What it asks for and the operator's policy allows, one wish a line.
    pub asks: Vec<String>,
    /// What the operator's policy takes away, with the line of the policy that does.
    pub withheld: Vec<String>,
    /// What to hand to `add` to say yes. It stands for this very component with these very wishes, so that nothing can be put in
    /// their place between the question and the answer.
    pub grant: String,
    /// In what it differs from the component that was granted before, if one was.
    pub difference: Option<LockDifference>,
}

impl ConsentNeeded {
    /// `taken`: names that it would have something kept under, and that stand for values that it did not set.
    pub(super) fn new(
        found: &Described,
        effective: &Manifest,
        difference: Option<LockDifference>,
        taken: &[String],
    ) -> Self {
        let mut asks = asks(effective);
        if !taken.is_empty() {
            let names = list(taken);
            asks.push(format!(
                "not get to keep {names}: a value that it did not set stands there, and psn will not replace it"
            ));
        }
        Self {
            name: found.manifest.plugin.name.clone(),
            version: visible(&found.manifest.plugin.version),
            sha256: found.sha256.clone(),
            capabilities_hash: found.manifest.capabilities_hash(),
            asks,
            withheld: withheld(effective),
            grant: grant_of(found, effective),
            difference,
        }
    }
}

/// What the operator's policy takes away, one wish a line.
pub fn withheld(effective: &Manifest) -> Vec<String> {
    effective.withheld.iter().map(|w| visible(&w.to_string())).collect()
}

/// What stands for consent to one component, its wishes, and what the operator's policy leaves of them: a hash over all. In full, because the author of two components could
/// search for a pair that agrees in a shorter one.
pub fn grant_of(found: &Described, effective: &Manifest) -> String {
    let mut hash = Sha256::new();
    let (asked, left) = (found.manifest.capabilities_hash(), effective.capabilities_hash());
    for part in ["psn grant", &found.manifest.plugin.name, &found.sha256, &asked, &left] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hex::encode(hash.finalize())
}

/// What a manifest asks for, in plain words, one wish a line. A plugin that asks for nothing can still compute, log, keep its own
/// notes and tell the time.
pub fn asks(manifest: &Manifest) -> Vec<String> {
    let mut asks = Vec::new();
    for service in &manifest.http {
        let with = match &service.auth {
            Some(Auth::Bearer(secret)) => format!(", signed in with {secret}"),
            Some(Auth::Header { name, secret }) => format!(", signed in with {secret} as the header {name}"),
            None => String::new(),
        };
        asks.push(format!("call {} at {}{with}: {}", service.service, service.base, list(&service.routes)));
        for (route, captured) in &service.capture {
            let (hidden, kept): (Vec<_>, Vec<_>) = captured.iter().partition(|(_, name)| *name == WITHHELD);
            let answer = format!("from the answer to {} {route}", service.service);
            if !kept.is_empty() {
                let names = list(kept.into_iter().map(|(_, name)| name));
                asks.push(format!("have psn keep {answer}, in place of what it had kept there before: {names}"));
            }
            if !hidden.is_empty() {
                asks.push(format!("not see {answer}: {}", list(hidden.into_iter().map(|(pointer, _)| pointer))));
            }
        }
        for (route, places) in &service.inject {
            let places = places.iter().map(|(pointer, names)| format!("{} at {pointer}", list(names)));
            let places: Vec<_> = places.collect();
            asks.push(format!("have psn send secrets to {} {route}: {}", service.service, list(&places)));
        }
    }
    for (table, grant) in &manifest.db {
        asks.push(database(table, grant));
    }
    if !manifest.secrets.names.is_empty() {
        asks.push(format!(
            "know whether these secrets are there, not what they are: {}",
            list(&manifest.secrets.names)
        ));
    }
    if !manifest.secrets.generate.is_empty() {
        asks.push(format!("have psn make random secrets: {}", list(&manifest.secrets.generate)));
    }
    for tool in &manifest.tool {
        let forms: Vec<_> = tool.args.iter().map(|args| format!("`{} {}`", tool.name, args.join(" "))).collect();
        let env = if tool.env.is_empty() { String::new() } else { format!(", which receives {}", list(&tool.env)) };
        asks.push(format!("run the program {} on this machine as {}{env}", tool.name, list(&forms)));
        for (variable, service) in &tool.addresses {
            asks.push(format!("tell {} in {variable} where {service} is, if it is elsewhere", tool.name));
        }
        for capture in &tool.capture {
            let run = capture.args.join(" ");
            let (tool, names) = (&tool.name, list(capture.names()));
            asks.push(format!(
                "have psn keep from what `{tool} {run}` prints, in place of what it had kept there before: {names}"
            ));
        }
    }
    if !manifest.hub.facts.is_empty() {
        asks.push(format!("see facts about the hub: {}", list(&manifest.hub.facts)));
    }
    if !manifest.settings.names.is_empty() {
        asks.push(format!("read settings: {}", list(&manifest.settings.names)));
    }
    if !manifest.vault.contexts.is_empty() {
        asks.push(format!("encrypt and decrypt stored tokens of: {}", list(&manifest.vault.contexts)));
    }
    let limits = &manifest.limits;
    if let Some(memory) = &limits.memory {
        asks.push(format!("use up to {memory} of memory"));
    }
    if let Some(deadline) = &limits.deadline {
        asks.push(format!("run for up to {deadline}"));
    }
    for (limit, what) in
        [(limits.http_calls, "HTTP calls"), (limits.db_calls, "database calls"), (limits.log_bytes, "bytes of log")]
    {
        if let Some(limit) = limit {
            asks.push(format!("make up to {limit} {what} a run"));
        }
    }
    if manifest.world() == World::Task {
        let task = manifest.task.clone().unwrap_or_default();
        asks.push(match &task.cron {
            Some(cron) => format!(
                "run by itself at `{cron}` ({}) as the task {}",
                task.timezone.as_deref().unwrap_or("UTC"),
                manifest.task_id()
            ),
            None => format!("be started as the task {}", manifest.task_id()),
        });
        if !task.env.is_empty() {
            asks.push(format!("have these secrets beside it in Trigger.dev's cloud: {}", list(&task.env)));
        }
    }
    asks.iter().map(|wish| visible(wish)).collect()
}

/// Shows what could make a line look like another one: control characters, and those that turn the direction of writing.
pub(super) fn visible(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if hidden(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

fn database(table: &str, grant: &DbGrant) -> String {
    let mut may = Vec::new();
    for (verb, columns) in [("read", &grant.select), ("add rows with", &grant.insert), ("change", &grant.update)] {
        if !columns.is_empty() {
            may.push(format!("{verb} {}", list(columns)));
        }
    }
    if grant.delete {
        may.push("delete rows".to_owned());
    }
    if grant.execute {
        may.push("call it".to_owned());
    }
    format!("in the hub's database, {table}: {}", if may.is_empty() { "nothing".to_owned() } else { may.join("; ") })
}

fn list(items: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    let items: Vec<_> = items.into_iter().collect();
    if items.is_empty() {
        return "nothing".to_owned();
    }
    items.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: &str = "[plugin]\nname = \"x\"\nversion = \"0.1.0\"\nsummary = \"s\"\n";

    fn parse(world: &str, rest: &str) -> Manifest {
        Manifest::parse(format!("{ABOUT}world = \"psn:plugin/{world}@0.1.0\"\n{rest}").as_bytes()).unwrap()
    }

    #[test]
    fn every_wish_is_told() {
        let manifest = parse(
            "task",
            r#"
[[http]]
service = "neon"
base = "https://console.neon.tech/api/v2"
auth = { bearer = "NEON_API_KEY" }
routes = ["GET /projects", "POST /projects"]
capture = { "POST /projects" = { "/uri" = "DATABASE_URL", "/role/password" = "-" } }
inject = { "POST /projects" = { "/v/key" = ["HUB_ENCRYPTION_KEY"] } }
[db]
"posts" = { select = ["id", "status"], update = ["status"], delete = true }
"psn.f(int)" = { execute = true }
[secrets]
names = ["A_*"]
generate = ["B"]
[[tool]]
name = "trigger"
args = [["deploy", "--env", "prod"]]
env = ["TRIGGER_ACCESS_TOKEN"]
addresses = { TRIGGER_URL = "trigger" }
capture = [{ args = ["deploy", "--env", "prod"], text = "D_KEY" }]
[hub]
facts = ["git"]
[settings]
names = ["neon.org_id"]
[vault]
contexts = ["oauth:*"]
[limits]
memory = "64MiB"
deadline = "60s"
http-calls = 7
[task]
cron = "*/15 * * * *"
env = ["C_KEY"]
"#,
        );
        assert_eq!(
            asks(&manifest),
            [
                "call neon at https://console.neon.tech/api/v2, signed in with NEON_API_KEY: GET /projects, POST /projects",
                "have psn keep from the answer to neon POST /projects, in place of what it had kept there before: DATABASE_URL",
                "not see from the answer to neon POST /projects: /role/password",
                "have psn send secrets to neon POST /projects: HUB_ENCRYPTION_KEY at /v/key",
                "in the hub's database, posts: read id, status; change status; delete rows",
                "in the hub's database, psn.f(int): call it",
                "know whether these secrets are there, not what they are: A_*",
                "have psn make random secrets: B",
                "run the program trigger on this machine as `trigger deploy --env prod`, which receives TRIGGER_ACCESS_TOKEN",
                "tell trigger in TRIGGER_URL where trigger is, if it is elsewhere",
                "have psn keep from what `trigger deploy --env prod` prints, in place of what it had kept there before: D_KEY",
                "see facts about the hub: git",
                "read settings: neon.org_id",
                "encrypt and decrypt stored tokens of: oauth:*",
                "use up to 64MiB of memory",
                "run for up to 60s",
                "make up to 7 HTTP calls a run",
                "run by itself at `*/15 * * * *` (UTC) as the task x",
                "have these secrets beside it in Trigger.dev's cloud: C_KEY",
            ]
        );
        assert!(asks(&parse("step", "")).is_empty());
    }

    #[test]
    fn the_header_of_a_credential_is_told() {
        let manifest = parse(
            "step",
            "[[http]]\nservice = \"web\"\nbase = \"https://web.example\"\nroutes = []\nauth = { header = { name = \"X-Key\", secret = \"K\" } }\n",
        );
        assert_eq!(asks(&manifest), ["call web at https://web.example, signed in with K as the header X-Key: nothing"]);
    }

    #[test]
    fn a_wish_cannot_look_like_another_one() {
        let manifest = parse("step", "[hub]\nfacts = [\"git\\u001b[2K\\nread nothing\", \"\\u202Eabc\"]\n");
        assert_eq!(asks(&manifest), ["see facts about the hub: git\\u{1b}[2K\\u{a}read nothing, \\u{202e}abc"]);
    }

    #[test]
    fn a_grant_stands_for_one_component_and_its_wishes() {
        let describe = |sha256: &str, rest: &str| Described {
            sha256: sha256.into(),
            manifest: parse("step", rest),
            imports: vec![],
            exports: vec![],
            wasi: false,
        };
        let grant = |found: &Described| grant_of(found, &found.manifest);
        let a = grant(&describe("aa", ""));
        assert_eq!(a.len(), 64);
        assert_eq!(a, grant(&describe("aa", "")));
        assert_ne!(a, grant(&describe("ab", "")));
        let asking = describe("aa", "[hub]\nfacts = [\"git\"]\n");
        assert_ne!(a, grant(&asking));
        // The same component under another policy.
        assert_ne!(grant_of(&asking, &describe("aa", "").manifest), grant(&asking));
    }
}
