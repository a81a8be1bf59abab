//! Which plugins there are: those built into psn, and those that were added to a project. Both pass the same checks each time one
//! is fetched: the bytes are what the lock says, and ask for what was granted.
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use chrono::{SubsecRound, Utc};

use super::component::{ComponentError, Described, MAX_COMPONENT_BYTES, describe};
use super::consent::{ConsentNeeded, asks, grant_of, withheld};
use super::lock::{LockEntry, LockError, LockFile, Source};
use super::manifest::{Manifest, World};
pub use super::origin::Origin;
use super::origin::{foreign, origin_of};
use super::policy::{OperatorPolicy, PolicyError};
pub use super::registry_error::{AddError, RegistryError};
use super::rights::rights;
use crate::atomic;
use crate::hub::{EnvFiles, ProjectDir};
use crate::secret::{SecretBackend as _, not_kept_by};

/// Where a project keeps the components that were added to it, each under its own digest.
const BLOBS: &str = ".psn/plugins";

/// Names under which psn itself speaks: of commands, of steps, and of the areas that its error codes begin with. The events of a plugin
/// of such a name could be taken for psn's own.
const OWN_NAMES: [&str; 33] = [
    "apply",
    "cloud-run",
    "component",
    "config",
    "db",
    "doctor",
    "events",
    "hooks",
    "host",
    "http",
    "hub",
    "keys",
    "local",
    "migrate",
    "neon",
    "plan",
    "plugin",
    "policy",
    "posts",
    "psn",
    "run",
    "runtime",
    "schema",
    "secrets",
    "setup",
    "state",
    "status",
    "task",
    "teardown",
    "tool",
    "trigger",
    "usage",
    "vault",
];

/// A plugin that is built into psn, with what it was locked to when psn was built.
#[derive(Clone, Copy, Debug)]
pub struct FirstParty {
    pub name: &'static str,
    /// Empty in psn's worker, which is given its component and only has to know it.
    pub component: &'static [u8],
    /// Hex SHA-256 of the component.
    pub sha256: &'static str,
    pub capabilities_hash: &'static str,
}

/// A plugin that may run: its bytes are the ones that were granted.
#[derive(Clone, Debug)]
pub struct Installed {
    /// What it asks for and the operator's policy leaves. All that follows sees this one.
    pub manifest: Manifest,
    pub component: Cow<'static, [u8]>,
    pub sha256: String,
    /// Whether it is given an (empty) WASI.
    pub wasi: bool,
    pub lock: LockEntry,
    pub origin: Origin,
}

impl Installed {
    /// The one way to a plugin that may run: the bytes must be what the entry says, and ask for what it grants. It is psn's own if its
    /// digest is among `own`, whatever the entry says.
    pub fn verified(
        component: impl Into<Cow<'static, [u8]>>,
        lock: LockEntry,
        policy: &OperatorPolicy,
        own: &[FirstParty],
    ) -> Result<Self, RegistryError> {
        let component = component.into();
        let found = describe_named(&component, &lock.name)?;
        let mut effective = policy.narrow(&found.manifest);
        let difference = lock.compare(&found, &effective);
        if let (Source::FirstParty, Some(difference)) = (&lock.source, &difference) {
            return Err(RegistryError::LockMismatch { difference: difference.clone(), origin: Origin::FirstParty });
        }
        let origin = origin_of(&found, own);
        if origin == Origin::ThirdParty && !policy.allows_third_party() {
            return Err(RegistryError::ThirdParty { name: lock.name });
        }
        if let Some(difference) = difference {
            return Err(RegistryError::LockMismatch { difference, origin });
        }
        effective.own = origin == Origin::FirstParty;
        foreign(&effective).map_err(|source| RegistryError::Component { plugin: lock.name.clone(), source })?;
        Ok(Self { manifest: effective, component, sha256: found.sha256, wasi: found.wasi, lock, origin })
    }
}

/// What [`Registry::add`] did.
#[derive(Clone, Debug, PartialEq)]
pub struct Added {
    pub name: String,
    pub sha256: String,
    /// What was granted under this name before.
    pub replaced: Option<LockEntry>,
}

/// What [`Registry::diff`] found.
#[derive(Clone, Debug)]
pub struct Diff {
    /// What it is now, and in what that differs from what was granted.
    pub consent: ConsentNeeded,
    /// The component's file; none for what is built in.
    pub file: Option<PathBuf>,
    /// What was granted; none where nobody agreed to anything yet.
    pub granted: Option<LockEntry>,
}

impl Diff {
    /// Whether it may run as it is.
    pub fn is_same(&self) -> bool {
        self.granted.is_some() && self.consent.difference.is_none()
    }
}

/// The plugins of one project.
#[derive(Debug)]
pub struct Registry {
    project: PathBuf,
    first_party: &'static [FirstParty],
    /// A damaged one stops what needs it: psn's own plugins do not, and nothing of others runs without it.
    lock: Result<LockFile, Arc<LockError>>,
    /// A damaged one stops every plugin: what it takes away is not known.
    policy: Result<OperatorPolicy, Arc<PolicyError>>,
    /// Verified already. Bytes that were, cannot change: they are in this process's memory.
    verified: Mutex<BTreeMap<String, Arc<Installed>>>,
}

impl Registry {
    /// Reads the lock file and the operator's policy. Where one cannot be read, whatever needs it says so. Components are read, and
    /// verified, when they are first asked for.
    pub fn open(project: &Path, first_party: &'static [FirstParty]) -> Self {
        Self {
            project: project.to_owned(),
            first_party,
            lock: LockFile::load(project).map_err(Arc::new),
            policy: OperatorPolicy::load(project).map_err(Arc::new),
            verified: Mutex::default(),
        }
    }

    /// The operator's policy.
    pub fn policy(&self) -> Result<&OperatorPolicy, RegistryError> {
        self.policy.as_ref().map_err(|e| RegistryError::Policy(Arc::clone(e)))
    }

    /// Whether what was added here can be known.
    pub fn readable(&self) -> Result<(), RegistryError> {
        self.lock().map(drop).map_err(RegistryError::Lock)
    }

    fn lock(&self) -> Result<&LockFile, Arc<LockError>> {
        self.lock.as_ref().map_err(Arc::clone)
    }

    /// All names, sorted; where the lock file is damaged, those of psn's own plugins.
    pub fn names(&self) -> Vec<String> {
        let built_in = self.first_party.iter().map(|f| f.name);
        built_in
            .chain(self.lock.iter().flat_map(|lock| lock.entries().map(|e| e.name.as_str())))
            .map(str::to_owned)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// The plugin of that name, verified: whatever is returned may run.
    pub fn get(&self, name: &str) -> Result<Arc<Installed>, RegistryError> {
        if let Some(known) = self.known().get(name) {
            return Ok(known.clone());
        }
        let policy = self.policy()?;
        let locked = self.lock().map(|lock| lock.get(name));
        let installed = Arc::new(match (self.built_in(name), locked) {
            // What pins it is of no use where it cannot be read; the build pins it too.
            (Some(built_in), pin) => self.first_party(built_in, pin.ok().flatten(), policy)?,
            (None, Err(e)) => return Err(RegistryError::Lock(e)),
            (None, Ok(Some(locked))) => self.third_party(locked, policy)?,
            (None, Ok(None)) => return Err(RegistryError::Unknown { name: name.to_owned(), known: self.names() }),
        });
        self.known().insert(name.to_owned(), installed.clone());
        Ok(installed)
    }

    /// All plugins, verified, sorted by name.
    pub fn all(&self) -> Result<Vec<Arc<Installed>>, RegistryError> {
        self.lock().map_err(RegistryError::Lock)?;
        self.names().iter().map(|name| self.get(name)).collect()
    }

    /// All plugins that are tasks, verified, sorted by name.
    pub fn tasks(&self) -> Result<Vec<Arc<Installed>>, RegistryError> {
        let mut tasks = self.all()?;
        tasks.retain(|p| p.manifest.world() == World::Task);
        Ok(tasks)
    }

    /// What all plugins were granted.
    pub fn manifests(&self) -> Result<Vec<Manifest>, RegistryError> {
        Ok(self.all()?.iter().map(|p| p.manifest.clone()).collect())
    }

    /// What can be said about a component without running it: for authors, and for people before they add it.
    pub fn describe(&self, bytes: &[u8]) -> Result<serde_json::Value, ComponentError> {
        let found = describe(bytes)?;
        if origin_of(&found, self.first_party) == Origin::ThirdParty {
            foreign(&found.manifest)?;
        }
        let about = &found.manifest.plugin;
        let nothing_taken = OperatorPolicy::default();
        let effective = self.policy.as_ref().unwrap_or(&nothing_taken).narrow(&found.manifest);
        let locked = self.lock.as_ref().ok().and_then(|lock| lock.get(&about.name));
        Ok(serde_json::json!({
            "name": about.name,
            "version": about.version,
            "world": about.world,
            "summary": about.summary,
            "bytes": bytes.len(),
            "sha256": found.sha256,
            "capabilities": found.manifest.capabilities_hash(),
            "asks": asks(&found.manifest),
            "imports": found.imports,
            "exports": found.exports,
            "wasi": found.wasi,
            "withheld": withheld(&effective),
            "granted": locked.is_some_and(|locked| locked.compare(&found, &effective).is_none()),
        }))
    }

    /// Adds a component, or another version of one. Nothing is written unless `grant` is the one for exactly this component: the
    /// error says what it asks for, and which grant stands for that.
    pub fn add(&mut self, file: &Path, grant: Option<&str>) -> Result<Added, AddError> {
        let bytes = read_bounded(file).map_err(|source| AddError::Read { path: file.to_owned(), source })?;
        let found = describe(&bytes).map_err(|source| AddError::Component { path: file.to_owned(), source })?;
        let name = found.manifest.plugin.name.clone();
        if self.built_in(&name).is_some() || OWN_NAMES.contains(&name.as_str()) {
            return Err(AddError::NameTaken(name));
        }
        let policy = self.policy.as_ref().map_err(|e| AddError::Policy(Arc::clone(e)))?;
        if !policy.allows_third_party() {
            return Err(AddError::ThirdParty { name });
        }
        let effective = policy.narrow(&found.manifest);
        foreign(&effective).map_err(|source| AddError::Component { path: file.to_owned(), source })?;
        let replaced = self.lock().map_err(AddError::Lock)?.get(&name).cloned();
        let needed = || {
            let difference = replaced.as_ref().and_then(|locked| locked.compare(&found, &effective));
            Box::new(ConsentNeeded::new(&found, &effective, difference, &self.taken(&effective)))
        };
        match grant {
            Some(given) if given == grant_of(&found, &effective) => {}
            Some(given) => return Err(AddError::WrongGrant { given: given.to_owned(), needed: needed() }),
            None => return Err(AddError::ConsentNeeded(needed())),
        }
        let source = match &replaced {
            // Agreed to anew, from psn's own copy: it still comes from where it came from.
            Some(old) if self.is_blob(file) => old.source.clone(),
            _ => Source::Path(self.as_named(file)),
        };
        let (asked, left) = (found.manifest.capabilities_hash(), effective.capabilities_hash());
        let entry = LockEntry {
            version: found.manifest.plugin.version.clone(),
            world: found.manifest.plugin.world.clone(),
            effective: (asked != left).then_some(left),
            capabilities: asked,
            grants: rights(&effective),
            granted_by: account(),
            granted_at: Some(Utc::now().trunc_subsecs(0)),
            source,
            sha256: found.sha256.clone(),
            name: name.clone(),
        };
        // The copy first: an entry without a component would stop every run.
        let blob = self.blob(&entry.sha256);
        let write = |source| AddError::Write { path: blob.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o755).create(self.project.join(BLOBS)).map_err(write)?;
        atomic::write(&blob, &bytes, 0o644).map_err(write)?;
        self.change(|lock| {
            lock.insert(entry);
        })
        .map_err(AddError::Lock)?;
        if let Some(old) = &replaced {
            self.forget_blob(&old.sha256);
        }
        Ok(Added { name, sha256: found.sha256, replaced })
    }

    /// What of a plugin, or of a component's file, is not what was granted.
    pub fn diff(&self, what: &str) -> Result<Diff, RegistryError> {
        let policy = self.policy()?;
        let lock = self.lock().map_err(RegistryError::Lock)?;
        if let Some(built_in) = self.built_in(what) {
            // Granted with psn itself: only a pin, or psn's own build, could say otherwise.
            let installed = self.first_party(built_in, lock.get(what), policy)?;
            let found = describe_named(&installed.component, what)?;
            let consent = ConsentNeeded::new(&found, &installed.manifest, None, &[]);
            return Ok(Diff { consent, file: None, granted: Some(installed.lock) });
        }
        let named = lock.get(what);
        let file = match named {
            Some(locked) => self.blob_of(locked)?,
            None if Path::new(what).exists() => what.into(),
            None => return Err(RegistryError::Unknown { name: what.to_owned(), known: self.names() }),
        };
        let bytes = match read_bounded(&file) {
            Ok(bytes) => bytes,
            Err(e) => return Err(unread(what, file, e)),
        };
        let found = describe_named(&bytes, what)?;
        let effective = policy.narrow(&found.manifest);
        let granted = named.or_else(|| lock.get(&found.manifest.plugin.name)).cloned();
        let difference = granted.as_ref().and_then(|locked| locked.compare(&found, &effective));
        let consent = ConsentNeeded::new(&found, &effective, difference, &self.taken(&effective));
        Ok(Diff { consent, file: Some(file), granted })
    }

    /// Takes a grant back, and with it the component.
    pub fn remove(&mut self, name: &str) -> Result<LockEntry, RegistryError> {
        let lock = self.lock().map_err(RegistryError::Lock)?;
        let Some(entry) = lock.get(name).cloned() else {
            return Err(RegistryError::NotAdded {
                name: name.to_owned(),
                added: lock.entries().map(|e| e.name.clone()).collect(),
            });
        };
        self.change(|lock| {
            lock.remove(name);
        })
        .map_err(RegistryError::Lock)?;
        self.forget_blob(&entry.sha256);
        Ok(entry)
    }

    /// Only what is on disk counts: where saving fails, nothing has changed.
    fn change(&mut self, change: impl FnOnce(&mut LockFile)) -> Result<(), Arc<LockError>> {
        let mut lock = self.lock()?.clone();
        change(&mut lock);
        lock.save(&self.project)?;
        self.lock = Ok(lock);
        self.known().clear();
        Ok(())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<Installed>>> {
        // Whatever is in the map was verified before it was put there, panic or not.
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes a component that no grant speaks of any more. One that stays is only some lost space.
    fn forget_blob(&self, sha256: &str) {
        if is_digest(sha256) && self.lock.as_ref().is_ok_and(|lock| lock.entries().all(|e| e.sha256 != sha256)) {
            let _ = fs::remove_file(self.blob(sha256));
        }
    }

    fn built_in(&self, name: &str) -> Option<&'static FirstParty> {
        self.first_party.iter().find(|f| f.name == name)
    }

    fn third_party(&self, locked: &LockEntry, policy: &OperatorPolicy) -> Result<Installed, RegistryError> {
        let file = self.blob_of(locked)?;
        let bytes = match read_bounded(&file) {
            Ok(bytes) => bytes,
            Err(e) => return Err(unread(&locked.name, file, e)),
        };
        match Installed::verified(bytes, locked.clone(), policy, self.first_party) {
            Err(RegistryError::LockMismatch { .. }) => {
                let consent = Box::new(self.diff(&locked.name)?.consent);
                Err(RegistryError::Changed { consent, file })
            }
            verified => verified,
        }
    }

    /// A built-in plugin against what it was locked to when psn was built, and against the project's entry of that name if there is
    /// one: it pins the plugin, so that a psn that brings another one is told apart.
    fn first_party(
        &self,
        built_in: &FirstParty,
        pin: Option<&LockEntry>,
        policy: &OperatorPolicy,
    ) -> Result<Installed, RegistryError> {
        let found = describe_named(built_in.component, built_in.name)?;
        let effective = policy.narrow(&found.manifest);
        // Version and world are what the embedded manifest says: the digest pins them too.
        let granted = LockEntry {
            name: built_in.name.to_owned(),
            version: found.manifest.plugin.version.clone(),
            world: found.manifest.plugin.world.clone(),
            sha256: built_in.sha256.to_owned(),
            capabilities: built_in.capabilities_hash.to_owned(),
            // Nobody has to agree that the operator takes something away from what psn brings.
            effective: Some(effective.capabilities_hash()),
            grants: Vec::new(),
            granted_by: "psn".to_owned(),
            granted_at: None,
            source: Source::FirstParty,
        };
        if let Some(difference) = pin.and_then(|pin| pin.compare(&found, &found.manifest)) {
            return Err(RegistryError::LockMismatch { difference, origin: Origin::FirstParty });
        }
        Installed::verified(built_in.component, granted, policy, self.first_party)
    }

    /// Names that it would have kept, and under which a value stands that it did not set: it will not be replaced.
    fn taken(&self, asked: &Manifest) -> Vec<String> {
        // Only said to whoever agrees. Where the files cannot be read, no run begins either.
        let values = ProjectDir::at(&self.project).ok().and_then(|project| EnvFiles::new(&project).load().ok());
        not_kept_by(&asked.plugin.name, values.unwrap_or_default(), asked.kept().chain(&asked.secrets.generate))
    }

    /// Where psn's copy of it is.
    fn blob_of(&self, locked: &LockEntry) -> Result<PathBuf, RegistryError> {
        let path = self.blob(&locked.sha256);
        if is_digest(&locked.sha256) {
            return Ok(path);
        }
        Err(RegistryError::Missing { name: locked.name.clone(), path })
    }

    /// Whether it is one of psn's own copies.
    fn is_blob(&self, file: &Path) -> bool {
        let real = |p: &Path| fs::canonicalize(p).ok();
        real(file).as_deref().and_then(Path::parent).map(Path::to_owned) == real(&self.project.join(BLOBS))
    }

    fn blob(&self, sha256: &str) -> PathBuf {
        self.project.join(BLOBS).join(format!("{sha256}.wasm"))
    }

    /// The path below the project where it lies there; else as it was given.
    fn as_named(&self, file: &Path) -> String {
        let inside = fs::canonicalize(file).ok().zip(fs::canonicalize(&self.project).ok());
        let inside = inside.as_ref().and_then(|(file, project)| file.strip_prefix(project).ok());
        inside.unwrap_or(file).display().to_string()
    }
}

fn unread(name: &str, path: PathBuf, e: std::io::Error) -> RegistryError {
    match e.kind() {
        std::io::ErrorKind::NotFound => RegistryError::Missing { name: name.to_owned(), path },
        _ => RegistryError::Read { path, source: e },
    }
}

fn describe_named(bytes: &[u8], name: &str) -> Result<Described, RegistryError> {
    describe(bytes).map_err(|source| RegistryError::Component { plugin: name.to_owned(), source })
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One more than allowed, so that `describe` sees that it is too long.
    fs::File::open(path)?.take(MAX_COMPONENT_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A digest is part of a path here, and comes from a file that anyone may have edited.
fn is_digest(s: &str) -> bool {
    s.len() == 64 && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Who agrees: the account's name as the shell says it, else its number.
fn account() -> String {
    ["USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()))
        .unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}
