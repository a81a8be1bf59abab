//! Secrets: a type that cannot be printed, and the store that plugins never see into.
mod kept;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::error::CodedError;
use crate::redact::Redactor;

pub use kept::{Keeper, MAX_KEPT, not_kept_by, record_name};

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

    /// The first 8 hex digits of SHA-256 over the name and the value: changes when the value does. Of a service's key, which is
    /// random, it tells nothing else; of a word that a person chose it would confirm a guess.
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
    #[error("{0} stands for a value that this plugin did not have kept: psn does not replace it")]
    KeptByAnother(String),
    #[error("the plugin {plugin} has {MAX_KEPT} secrets kept already, and psn keeps no more for one")]
    TooMany { plugin: String },
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
            SecretError::KeptByAnother(name) => CodedError::new(
                "secrets.kept-by-another",
                message,
                [
                    "psn keys list".to_owned(),
                    format!("If the plugin is to have its own value there: psn keys unset {name}"),
                ],
            ),
            SecretError::TooMany { plugin } => CodedError::new(
                "secrets.too-many",
                message,
                [
                    format!("psn plugin diff {plugin}"),
                    "For each that it does not need any more: psn keys unset NAME".to_owned(),
                ],
            ),
            SecretError::Backend(e) => *e,
        }
    }
}

/// Where secrets come from and go to: the env files of a hub's folder, or the environment of a run in Trigger.dev.
pub trait SecretBackend: Send + Sync {
    /// All secrets, by name.
    fn load(&self) -> Result<BTreeMap<String, Secret>, SecretError>;
    /// Keeps the values durably, all or none of them, before it returns.
    fn store(&self, values: &[(&str, &Secret)]) -> Result<(), SecretError>;
    /// Forgets a value durably before it returns. What a person brought stays.
    fn remove(&self, name: &str) -> Result<(), SecretError>;
    /// As [`SecretBackend::store`], for what a person brings.
    fn bring(&self, name: &str, value: &Secret) -> Result<(), SecretError> {
        self.store(&[(name, value)])
    }
    /// Forgets a value durably, whoever brought it.
    fn unset(&self, name: &str) -> Result<(), SecretError> {
        self.remove(name)
    }
}

/// The live secrets of one process. Every value that enters is registered with the redactor first.
pub struct Secrets {
    backend: Box<dyn SecretBackend>,
    values: RwLock<BTreeMap<String, Secret>>,
    /// Which plugin had which of them kept. Locked before the values.
    records: Mutex<kept::Records>,
    redactor: Arc<Redactor>,
}

impl Secrets {
    pub fn open(backend: Box<dyn SecretBackend>, redactor: Arc<Redactor>) -> Result<Self, SecretError> {
        let mut values = backend.load()?;
        let records = Mutex::new(kept::Records::split(&mut values));
        redactor.register_all(values.iter().filter(|(name, _)| !is_public(name)).map(|(_, value)| value));
        Ok(Self { backend, values: RwLock::new(values), records, redactor })
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

    /// Registers the value with the redactor, keeps it durably, then makes it live. For psn itself and a person: a plugin's values go
    /// through [`Secrets::keep`].
    pub fn set(&self, name: &str, value: Secret) -> Result<(), SecretError> {
        self.check(name, &value)?;
        if self.is_same(name, &value) {
            return Ok(());
        }
        self.backend.store(&[(name, &value)])?;
        self.make_live(name, value);
        Ok(())
    }

    /// As [`Secrets::set`], for what a person brings.
    pub fn bring(&self, name: &str, value: Secret) -> Result<(), SecretError> {
        self.check(name, &value)?;
        if self.is_same(name, &value) {
            return Ok(());
        }
        self.backend.bring(name, &value)?;
        self.make_live(name, value);
        Ok(())
    }

    /// Random bytes, hex encoded, unless the secret exists.
    pub fn generate(&self, name: &str, bytes: usize) -> Result<(), SecretError> {
        self.generate_for(&Keeper::Psn, name, bytes)
    }

    /// Whether it can be kept; what can is registered with the redactor.
    fn check(&self, name: &str, value: &Secret) -> Result<(), SecretError> {
        if !is_secret_name(name) {
            return Err(SecretError::BadName(name.to_owned()));
        }
        if value.expose().len() > MAX_SECRET_BYTES {
            let reason = format!("it has more than {MAX_SECRET_BYTES} bytes");
            return Err(SecretError::NotKept { name: name.to_owned(), reason });
        }
        if !is_public(name) {
            self.redactor.register(value);
        }
        Ok(())
    }

    fn is_same(&self, name: &str, value: &Secret) -> bool {
        self.get(name).is_some_and(|old| old.expose() == value.expose())
    }

    fn make_live(&self, name: &str, value: Secret) {
        self.values.write().unwrap_or_else(std::sync::PoisonError::into_inner).insert(name.to_owned(), value);
    }

    /// It is no longer kept. The redactor goes on looking for it.
    pub fn remove(&self, name: &str) -> Result<(), SecretError> {
        self.backend.remove(name)?;
        self.forget(name);
        Ok(())
    }

    /// As [`Secrets::remove`], also of what a person brought. Nobody is its keeper any more.
    pub fn unset(&self, name: &str) -> Result<(), SecretError> {
        self.backend.unset(name)?;
        self.backend.unset(&kept::record_name(name))?;
        self.forget(name);
        Ok(())
    }

    fn forget(&self, name: &str) {
        self.values.write().unwrap_or_else(std::sync::PoisonError::into_inner).remove(name);
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Secret>> {
        // A panic while the lock was held cannot leave the map half changed: insert is the last thing done under it.
        self.values.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn random(name: &str, bytes: usize) -> Result<Secret, SecretError> {
    let mut buf = Zeroizing::new(vec![0u8; bytes]);
    getrandom::fill(&mut buf).map_err(|e| SecretError::NotKept { name: name.to_owned(), reason: e.to_string() })?;
    Ok(Secret::new(hex::encode(buf.as_slice())))
}

/// The longest secret, in bytes: a private key in PEM has 3 KiB, a token of claims 4 KiB. Every output is searched for all of them.
pub const MAX_SECRET_BYTES: usize = 8 << 10;

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
    matches!(name, "PSN_HUB" | "PSN_HUB_ID" | "TRIGGER_PROJECT_REF" | "TRIGGER_API_URL") || kept::is_record(name)
}

/// Secrets that live in memory only: what a run in Trigger.dev's environment gets, and what tests use.
pub struct MemoryBackend(pub std::sync::Mutex<BTreeMap<String, Secret>>);

impl SecretBackend for MemoryBackend {
    fn load(&self) -> Result<BTreeMap<String, Secret>, SecretError> {
        Ok(self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone())
    }

    fn store(&self, values: &[(&str, &Secret)]) -> Result<(), SecretError> {
        let mut kept = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        kept.extend(values.iter().map(|(name, value)| ((*name).to_owned(), (*value).clone())));
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), SecretError> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::{Debug, Display};
    use std::marker::PhantomData;

    use super::*;

    /// Says at compile time whether a type has a trait: the inherent constant is there only where it does, and goes first.
    macro_rules! has {
        ($bound:path, $ty:ty) => {{
            #[allow(dead_code, reason = "it is there for types that have not the trait")]
            trait Without {
                const HAS: bool = false;
            }
            struct Probe<T>(PhantomData<T>);
            impl<T> Without for Probe<T> {}
            #[allow(dead_code, reason = "it is there for types that have the trait")]
            impl<T: $bound> Probe<T> {
                const HAS: bool = true;
            }
            Probe::<$ty>::HAS
        }};
    }

    #[test]
    fn a_secret_cannot_be_printed_and_is_wiped() {
        assert!(has!(Debug, String) && !has!(Debug, Secret), "the probe works, and Secret has no Debug");
        assert!(!has!(Display, Secret) && !has!(serde::Serialize, Secret) && !has!(AsRef<str>, Secret));
        assert!(!has!(std::ops::Deref, Secret) && !has!(PartialEq, Secret));
        let Secret(inner) = Secret::new("x");
        fn wiped<T: zeroize::ZeroizeOnDrop>(_: &T) {}
        wiped(inner.as_ref());
    }

    #[test]
    fn what_is_too_long_to_be_searched_for_is_not_kept() {
        let redactor = Arc::new(Redactor::new());
        let secrets = Secrets::open(Box::new(MemoryBackend(Default::default())), redactor).unwrap();
        let refused = secrets.set("LONG", Secret::new("x".repeat(MAX_SECRET_BYTES + 1))).unwrap_err();
        assert!(matches!(refused, SecretError::NotKept { .. }), "{refused}");
        assert!(!secrets.exists("LONG"));
        secrets.set("LONG", Secret::new("x".repeat(MAX_SECRET_BYTES))).unwrap();
    }
}
