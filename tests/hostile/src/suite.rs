//! Runs the attacks, one after the other, in one world.
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::SuiteError;
use crate::attack::{Attack, attacks};
use crate::database::{changed, role_works};
use crate::files::Files;
use crate::judge::{self, Effects, Seen, note};
use crate::process::run;
use crate::world::World;

/// How long a command that decides and runs nothing may take.
const QUICK: Duration = Duration::from_secs(60);

pub struct Options {
    /// The psn to test.
    pub program: PathBuf,
    /// Ids, or beginnings of ids; all attacks where it is empty.
    pub only: Vec<String>,
    /// When the whole suite must be done.
    pub limit: Duration,
}

/// What became of one attack.
#[derive(Clone, Debug)]
pub struct Row {
    pub id: String,
    pub title: String,
    pub group: &'static str,
    pub threat: &'static str,
    pub control: bool,
    pub held: bool,
    /// In words.
    pub observed: String,
    pub ms: u64,
}

/// Runs the attacks that were asked for, and hands each row over as it is known.
pub async fn run_suite(options: &Options, on_row: &mut (dyn FnMut(&Row) + Send)) -> Result<Vec<Row>, SuiteError> {
    let chosen: Vec<&Attack> = attacks()
        .iter()
        .filter(|a| {
            options.only.is_empty() || options.only.iter().any(|o| a.id.starts_with(o.as_str()) || a.group == o)
        })
        .collect();
    if chosen.is_empty() {
        return Err(SuiteError::NoSuchAttack(options.only.join(", ")));
    }
    let mut world = World::new(&options.program).await?;
    world.start_hub().await?;
    let mut rows = Vec::new();
    let mut tell = |row: Row| {
        on_row(&row);
        rows.push(row);
    };
    if chosen.iter().any(|a| a.wants_database()) {
        world.make_database().await?;
        // Roles are made for all of them at once.
        for attack in chosen.iter().filter(|a| needs_role(a)) {
            add(&world, attack).await?;
        }
        world.prepare(&["run", "migrate"]).await?;
    }
    for attack in &chosen {
        tell(one(&mut world, attack).await?);
    }
    tell(afterwards(&world).await?);
    Ok(rows)
}

/// [`run_suite`], within the options' limit.
pub async fn run_within(options: &Options, on_row: &mut (dyn FnMut(&Row) + Send)) -> Result<Vec<Row>, SuiteError> {
    let late = SuiteError::Time(options.limit.as_secs());
    tokio::time::timeout(options.limit, run_suite(options, on_row)).await.unwrap_or(Err(late))
}

fn needs_role(attack: &Attack) -> bool {
    attack.wants_database() && attack.expected.migrated.is_empty() && attack.expected.added.is_empty()
}

/// What adding came to: the plugin's name, or the code of the refusal.
struct Added {
    plugin: Option<String>,
    code: String,
    ran: crate::process::Ran,
}

/// As a person does who agrees to whatever is asked: look, then grant what the answer says.
async fn add(world: &World, attack: &Attack) -> Result<Added, SuiteError> {
    let file = world.root().join("components").join(format!("{}.wasm", attack.id));
    std::fs::write(&file, attack.component()).map_err(SuiteError::io("a component"))?;
    let path = file.display().to_string();
    let before = lock(world);
    let (asked, mut code) = world.coded(&["plugin", "add", &path], QUICK).await?;
    let mut ran = asked;
    let events = crate::stream::events(&ran.stdout).unwrap_or_default();
    let consent = events.iter().find(|e| e["status"] == "needs_consent");
    if let Some(consent) = consent {
        let command = consent["needs"][0]["next"][0]["command"].as_str().unwrap_or_default().to_owned();
        let mut words: Vec<&str> = command.split(' ').skip(1).collect();
        let nothing = "0".repeat(64);
        if attack.expected.tamper == "wrong-grant"
            && let Some(last) = words.last_mut()
        {
            *last = &nothing;
        }
        (ran, code) = world.coded(&words, QUICK).await?;
    }
    let now = lock(world);
    let plugin = (before != now).then(|| {
        let named = now.lines().filter(|l| l.starts_with("name = ")).find(|l| !before.lines().any(|b| b == *l));
        named.and_then(|l| l.split('"').nth(1)).unwrap_or(attack.name).to_owned()
    });
    Ok(Added { plugin, code, ran })
}

fn lock(world: &World) -> String {
    std::fs::read_to_string(world.project().join("psn.lock")).unwrap_or_default()
}

async fn one(world: &mut World, attack: &Attack) -> Result<Row, SuiteError> {
    let started = Instant::now();
    let mut effects = Effects::new();
    let words = observe(world, attack, &mut effects).await?;
    let held = judge::held(&attack.expected, &effects);
    let seen: Vec<String> = effects.iter().map(|(kind, what)| format!("{kind}: {what}")).collect();
    Ok(Row {
        id: attack.id.to_owned(),
        title: attack.title.to_owned(),
        group: attack.group,
        threat: attack.threat,
        control: attack.is_control(),
        held,
        observed: if seen.is_empty() { words } else { seen.join("; ") },
        ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

/// Adds and runs it, notes the effects, and says in words how psn ended it.
async fn observe(world: &mut World, attack: &Attack, effects: &mut Effects) -> Result<String, SuiteError> {
    let expected = &attack.expected;
    let in_lock = lock(world).contains(&format!("name = \"{}\"\n", attack.name));
    let plugin = if in_lock {
        attack.name.to_owned()
    } else {
        let added = add(world, attack).await?;
        let name = added.plugin.clone().unwrap_or_else(|| attack.name.to_owned());
        judge::output(&added.ran, &world.canaries, effects);
        if !expected.added.is_empty() || expected.effects.contains(&"installed") {
            if added.plugin.is_some() {
                note(effects, "installed", format!("{name} was added"));
            }
            if added.ran.killed {
                note(effects, "time", "deciding took too long".to_owned());
            }
            if added.code != expected.added {
                note(effects, "outcome", format!("{} instead of {}", added.code, expected.added));
            }
            remove(world, added.plugin.as_deref()).await?;
            return Ok(format!("refused when added: {}", added.code));
        }
        if added.plugin.is_none() {
            note(effects, "outcome", format!("it could not be added: {}", added.code));
            return Ok(String::new());
        }
        name
    };
    if !expected.migrated.is_empty() {
        let words = role(world, attack, effects).await?;
        remove(world, Some(&plugin)).await?;
        return Ok(words);
    }
    let tampered = tamper(world, attack, &plugin).await?;
    let files = Files::look(world.root(), &plugin);
    let state = match &mut world.database {
        Some(database) => Some(database.state().await?),
        None => None,
    };
    world.web.take();
    world.inside.take();
    let limit = Duration::from_millis(expected.within_ms.max(crate::attack::LEAST_MS));
    let ran = run(world.command(&["run", &plugin]), limit).await?;
    let seen = Seen {
        ran: &ran,
        web: world.web.take(),
        inside: world.inside.take(),
        canaries: &world.canaries,
        credential: &world.credential,
    };
    let events = judge::judge(attack, &plugin, &seen, effects);
    if let Some(what) = files.changed(&Files::look(world.root(), &plugin), attack.manifests) {
        note(effects, "files", what);
    }
    if let Some(canary) = notes(world, &plugin).and_then(|notes| world.canaries.iter().find(|c| c.is_in(&notes))) {
        note(effects, "secret", format!("{} in the plugin's notes", canary.name));
    }
    if let (Some(before), Some(database)) = (state, &mut world.database) {
        if let Some(what) = changed(&before, &database.state().await?) {
            note(effects, "database", what);
        }
        if let Some(what) = database.left_over().await? {
            note(effects, "sessions", what);
        }
    }
    if attack.wants_database()
        && let Some(url) = world.secret(&format!("DATABASE_URL_PLUGIN_{}", plugin.to_uppercase().replace('-', "_")))
        && let Err(what) = role_works(&url, &world.ca()).await
    {
        note(effects, "database", what);
    }
    if let Some((file, bytes)) = tampered
        && std::fs::read(&file).is_ok_and(|now| now == bytes)
    {
        note(effects, "files", format!("{} is still as it was made", file.display()));
    }
    if !in_lock {
        remove(world, Some(&plugin)).await?;
    }
    let code = judge::code(&events);
    let told = judge::told(&events);
    Ok(match (code.is_empty(), told.is_empty()) {
        (false, _) => format!("ended: {code}"),
        (true, false) => format!("told: {}", summed_up(&told)),
        (true, true) => "no effect".to_owned(),
    })
}

/// What a plugin kept for later.
fn notes(world: &World, plugin: &str) -> Option<Vec<u8>> {
    let hubs = std::fs::read_dir(world.project().join(".psn/state")).ok()?;
    hubs.flatten().find_map(|hub| std::fs::read(hub.path().join(format!("{plugin}.json"))).ok())
}

/// Equal answers in a row, counted.
fn summed_up(told: &[&str]) -> String {
    let mut out: Vec<(String, usize)> = Vec::new();
    for word in told {
        match out.last_mut() {
            Some((last, n)) if last == word => *n += 1,
            _ => out.push(((*word).to_owned(), 1)),
        }
    }
    let words = out.into_iter().map(|(w, n)| if n == 1 { w } else { format!("{w} ×{n}") });
    words.collect::<Vec<_>>().join(", ")
}

/// A plugin that must not be given the role that it asks for.
async fn role(world: &mut World, attack: &Attack, effects: &mut Effects) -> Result<String, SuiteError> {
    let before = match &mut world.database {
        Some(database) => database.state().await?,
        None => Vec::new(),
    };
    let (ran, mut code) = world.coded(&["run", "migrate"], QUICK).await?;
    // What is wrong with one plugin is a warning: the migration itself goes on.
    let warns =
        |e: &serde_json::Value| e["type"] == "check" && e["status"] == "warn" && e["check"] == attack.expected.migrated;
    if crate::stream::events(&ran.stdout).unwrap_or_default().iter().any(warns) {
        attack.expected.migrated.clone_into(&mut code);
    }
    judge::output(&ran, &world.canaries, effects);
    if code != attack.expected.migrated {
        note(effects, "outcome", format!("{code} instead of {}", attack.expected.migrated));
    }
    if let Some(database) = &mut world.database
        && let Some(what) = changed(&before, &database.state().await?)
    {
        note(effects, "database", what);
    }
    Ok(format!("refused when its role is made: {code}"))
}

async fn remove(world: &World, plugin: Option<&str>) -> Result<(), SuiteError> {
    if let Some(plugin) = plugin {
        world.prepare(&["plugin", "remove", plugin]).await?;
    }
    Ok(())
}

/// What somebody with access to the files does before the run. Answers a file that must not stay as it was left.
async fn tamper(world: &World, attack: &Attack, plugin: &str) -> Result<Option<(PathBuf, Vec<u8>)>, SuiteError> {
    let read = |path: &Path| std::fs::read(path).map_err(SuiteError::io(path.display().to_string()));
    let write =
        |path: &Path, bytes: &[u8]| std::fs::write(path, bytes).map_err(SuiteError::io(path.display().to_string()));
    let text = lock(world);
    let entry = text.split("[[plugin]]").find(|e| e.contains(&format!("\"{plugin}\""))).unwrap_or_default();
    let field = |name: &str| {
        let line = entry.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(" = ")).unwrap_or_default();
        line.trim_matches('"').to_owned()
    };
    let blob = world.project().join(".psn/plugins").join(format!("{}.wasm", field("sha256")));
    match attack.expected.tamper {
        // One bit, in the manifest's summary: it asks for the same and is another component.
        "component" => {
            let mut bytes = read(&blob)?;
            let at = bytes.len() - 3;
            bytes[at] ^= 1;
            write(&blob, &bytes)?;
        }
        // Another attack's component in its place.
        "swap" => {
            let other = attacks().iter().find(|a| a.id != attack.id && a.group == attack.group && a.is_scripted());
            write(&blob, &other.map(Attack::component).unwrap_or_default())?;
        }
        "capabilities" => {
            let granted = field("capabilities");
            write(&world.project().join("psn.lock"), text.replace(&granted, &"0".repeat(64)).as_bytes())?;
        }
        // Compiled code that somebody else made.
        "cache" => {
            run(world.command(&["run", plugin]), QUICK).await?;
            let sha256 = field("sha256");
            let mut folders = vec![world.root().join("home/cache")];
            while let Some(folder) = folders.pop() {
                for path in std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|e| e.path()) {
                    if path.is_dir() {
                        folders.push(path);
                    } else if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&sha256)) {
                        let mut bytes = read(&path)?;
                        let middle = bytes.len() / 2;
                        bytes[middle] ^= 0x40;
                        write(&path, &bytes)?;
                        return Ok(Some((path, bytes)));
                    }
                }
            }
            return Err(SuiteError::io("compiled code")(std::io::ErrorKind::NotFound.into()));
        }
        _ => {}
    }
    Ok(None)
}

/// After all that: the hub works, and psn answers.
async fn afterwards(world: &World) -> Result<Row, SuiteError> {
    let started = Instant::now();
    let mut failed = Vec::new();
    for args in [&["status"][..], &["plugin", "list"], &["run", "keys"], &["local", "status"]] {
        let (ran, code) = world.coded(args, QUICK).await?;
        let mut effects = Effects::new();
        judge::output(&ran, &world.canaries, &mut effects);
        if ran.code != Some(0) || !effects.is_empty() {
            failed.push(format!(
                "psn {}: {code} {}",
                args.join(" "),
                effects.values().cloned().collect::<Vec<_>>().join(", ")
            ));
        }
    }
    Ok(Row {
        id: "afterwards".to_owned(),
        title: "After all of that, the hub works and psn answers".to_owned(),
        group: "afterwards",
        threat: "",
        control: false,
        held: failed.is_empty(),
        observed: if failed.is_empty() { "all commands work".to_owned() } else { failed.join("; ") },
        ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}
