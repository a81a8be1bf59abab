//! Secrets: a type that cannot be printed, and the store that plugins never see into.
use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::error::CodedError;
use crate::redact::Redactor;

/// A secret value. No Debug, Display or Serialize; wiped when dropped. [`Secret::expose`] is the only way in, and easy to grep for.
#[derive(Clone)]
pub struct Secret(Arc<Zeroizing<String>>);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(Arc::new(Zeroizing::new(value.into())))
    }

    /// The value, for the one place that needs it.
    pub fn expose(&self) -> &str {
        self.0.as_str()
    }

    /// The first 8 hex digits of SHA-256 over the name and the value: changes when the value does, tells nothing else.
    pub fn fingerprint(&self, name: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(name.as_bytes());
        hash.update([0]);
        hash.update(self.expose().as_bytes());
        hex::encode(&hash.finalize()[..4])
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("{0} is not a secret's name: use capital letters, digits and _")]
    BadName(String),
    #[error("{name} cannot be kept here: {reason}")]
    NotKept { name: String, reason: String },
    /// In the backend's own words.
    #[error(transparent)]
    Backend(#[from] Box<CodedError>),
}

impl From<SecretError> for CodedError {
    fn from(e: SecretError) -> Self {
        let message = e.to_string();
        match e {
            SecretError::BadName(_) => {
                CodedError::new("secrets.bad-name", message, ["psn keys set NEON_API_KEY --stdin"])
            }
            SecretError::NotKept { .. } => CodedError::new("secrets.not-kept", message, ["psn status"]),
            SecretError::Backend(e) => *e,
        }
    }
}

/// Where secrets come from and go to: the env files of a hub's folder, or the environment of a run in Trigger.dev.
pub trait SecretBackend: Send + Sync {
    /// All secrets, by name.
    fn load(&self) -> Result<BTreeMap<String, Secret>, SecretError>;
    /// Keeps a value durably before it returns.
    fn store(&self, name: &str, value: &Secret) -> Result<(), SecretError>;
}

/// The live secrets of one process. Every value that enters is registered with the redactor first.
pub struct Secrets {
    backend: Box<dyn SecretBackend>,
    values: RwLock<BTreeMap<String, Secret>>,
    redactor: Arc<Redactor>,
}

impl Secrets {
    pub fn open(backend: Box<dyn SecretBackend>, redactor: Arc<Redactor>) -> Result<Self, SecretError> {
        let values = backend.load()?;
        for (name, value) in &values {
            if !is_public(name) {
                redactor.register(value);
            }
        }
        Ok(Self { backend, values: RwLock::new(values), redactor })
    }

    pub fn get(&self, name: &str) -> Option<Secret> {
        self.read().get(name).cloned()
    }

    pub fn exists(&self, name: &str) -> bool {
        self.read().contains_key(name)
    }

    pub fn names(&self) -> Vec<String> {
        self.read().keys().cloned().collect()
    }

    pub fn fingerprint(&self, name: &str) -> Option<String> {
        self.get(name).map(|s| s.fingerprint(name))
    }

    /// Registers the value with the redactor, keeps it durably, then makes it live.
    pub fn set(&self, name: &str, value: Secret) -> Result<(), SecretError> {
        if !is_secret_name(name) {
            return Err(SecretError::BadName(name.to_owned()));
        }
        if !is_public(name) {
            self.redactor.register(&value);
        }
        if self.get(name).is_some_and(|old| old.expose() == value.expose()) {
            return Ok(());
        }
        self.backend.store(name, &value)?;
        self.values.write().unwrap_or_else(std::sync::PoisonError::into_inner).insert(name.to_owned(), value);
        Ok(())
    }

    /// Random bytes, hex encoded, unless the secret exists.
    pub fn generate(&self, name: &str, bytes: usize) -> Result<(), SecretError> {
        if self.exists(name) {
            return Ok(());
        }
        let mut buf = Zeroizing::new(vec![0u8; bytes]);
        getrandom::fill(&mut buf).map_err(|e| SecretError::NotKept { name: name.to_owned(), reason: e.to_string() })?;
        self.set(name, Secret::new(hex::encode(buf.as_slice())))
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Secret>> {
        // A panic while the lock was held cannot leave the map half changed: insert is the last thing done under it.
        self.values.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The longest name of a secret, in bytes. Longer ones are typing errors.
pub const MAX_SECRET_NAME: usize = 100;

/// Capital letters, digits and `_`, not beginning with a digit: what every env file reader accepts.
pub fn is_secret_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= MAX_SECRET_NAME
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

/// What stands in hub.env beside the secrets and is none: it may be shown, and is not redacted.
pub fn is_public(name: &str) -> bool {
    matches!(name, "PSN_HUB" | "PSN_HUB_ID" | "TRIGGER_PROJECT_REF" | "TRIGGER_API_URL")
}

/// Secrets that live in memory only: what a run in Trigger.dev's environment gets, and what tests use.
pub struct MemoryBackend(pub std::sync::Mutex<BTreeMap<String, Secret>>);

impl SecretBackend for MemoryBackend {
    fn load(&self) -> Result<BTreeMap<String, Secret>, SecretError> {
        Ok(self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone())
    }

    fn store(&self, name: &str, value: &Secret) -> Result<(), SecretError> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(name.to_owned(), value.clone());
        Ok(())
    }
}
