//! What one run of the local hub's engine has made ready and the next one can use: a component that was read, hashed, parsed and
//! compared with its grant, and the filter for an environment's secrets. Both cost more than a short run itself.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use super::component_store::{ComponentStore, Reference, StoreError};
use crate::plugins::RegistryError;
use crate::plugins::registry::Installed;
use crate::redact::Redactor;
use crate::secret::{MemoryBackend, Secret, SecretError, Secrets};

/// Components and environments kept; with more of them, all are made ready anew. A hub has a handful of each.
const MOST: usize = 64;

/// Of which component and which grant it was made, and it.
struct Verified {
    grant: Vec<u8>,
    installed: Arc<Installed>,
}

#[derive(Default)]
pub(super) struct KeptReady {
    verified: Mutex<BTreeMap<Reference, Verified>>,
    /// By a digest of the environment that each knows.
    filters: Mutex<BTreeMap<[u8; 32], Redactor>>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum NotReady {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl KeptReady {
    /// The grant is read each time, so that another one counts from the next run on. A component's bytes are what its name says for
    /// ever, and those that were verified are in this process's memory.
    pub(super) fn component(&self, store: &ComponentStore, file_path: &str) -> Result<Arc<Installed>, NotReady> {
        let reference = Reference::parse(file_path)?;
        let grant = store.grant(&reference)?;
        if let Some(known) = lock(&self.verified).get(&reference).filter(|known| known.grant == grant) {
            return Ok(Arc::clone(&known.installed));
        }
        let (component, entry, policy) = store.get(&reference, &grant)?;
        // A file says that it is psn's own; only this psn's build knows.
        let installed = Arc::new(Installed::verified(component, entry, &policy, super::FIRST_PARTY)?);
        keep(&self.verified, reference, Verified { grant, installed: Arc::clone(&installed) });
        Ok(installed)
    }

    /// The secrets of a run, and the filter that knows them, each its own: what a run learns, the next one does not have.
    pub(super) fn secrets(&self, env: &BTreeMap<String, String>) -> Result<(Secrets, Arc<Redactor>), SecretError> {
        let digest = digest(env);
        let known = lock(&self.filters).get(&digest).map(Redactor::fork);
        let is_new = known.is_none();
        let redactor = Arc::new(known.unwrap_or_default());
        let values = env.iter().map(|(name, value)| (name.clone(), Secret::new(value.as_str()))).collect();
        let secrets = Secrets::open(Box::new(MemoryBackend(Mutex::new(values))), Arc::clone(&redactor))?;
        if is_new {
            keep(&self.filters, digest, redactor.fork());
        }
        Ok((secrets, redactor))
    }
}

fn digest(env: &BTreeMap<String, String>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for text in env.iter().flat_map(|(name, value)| [name, value]) {
        hash.update(text.len().to_le_bytes());
        hash.update(text);
    }
    hash.finalize().into()
}

fn keep<K: Ord, V>(kept: &Mutex<BTreeMap<K, V>>, key: K, value: V) {
    let mut kept = lock(kept);
    if kept.len() >= MOST {
        kept.clear();
    }
    kept.insert(key, value);
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing that panics leaves a map half changed: an insert is the last thing done under the lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_run_has_what_its_environment_says_and_nothing_of_another_run() {
        let kept = KeptReady::default();
        let ours = env(&[("TRIGGER_SECRET_KEY", "tr_prod_first-secret"), ("PSN_HUB_ID", "7f3a0c1d")]);
        for _ in 0..2 {
            let (secrets, redactor) = kept.secrets(&ours).unwrap();
            let said = "tr_prod_first-secret of 7f3a0c1d, learnt-by-a-run, tr_prod_other-secret";
            assert_eq!(redactor.redact(said), "[redacted] of 7f3a0c1d, learnt-by-a-run, tr_prod_other-secret");
            secrets.set("LEARNT", Secret::new("learnt-by-a-run")).unwrap();
            assert!(redactor.finds(b"learnt-by-a-run"));
        }
        assert!(!kept.secrets(&ours).unwrap().0.exists("LEARNT"));
        let (secrets, redactor) = kept.secrets(&env(&[("TRIGGER_SECRET_KEY", "tr_prod_other-secret")])).unwrap();
        assert!(!redactor.finds(b"tr_prod_first-secret") && redactor.finds(b"tr_prod_other-secret"));
        assert_eq!(secrets.names(), ["TRIGGER_SECRET_KEY"]);
    }

    #[test]
    fn what_is_kept_has_an_end() {
        let kept = KeptReady::default();
        for n in 0..=MOST {
            kept.secrets(&env(&[("A", &format!("secret-number-{n}"))])).unwrap();
        }
        assert_eq!(lock(&kept.filters).len(), 1);
    }
}
