//! For whom a secret is kept. A plugin that someone else wrote replaces only what it had kept itself.
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{MAX_SECRET_NAME, Secret, SecretError, Secrets, is_secret_name};

/// Before a secret's name: the line of hub.env that says which plugin had it kept.
const RECORD: &str = "PSN_KEPT_";

/// Secrets that one plugin may have kept. A service gives a plugin one or two keys; every output is searched for all of them.
pub const MAX_KEPT: usize = 32;

/// Who has a secret kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// psn, its own plugins, or a person through it.
    Psn,
    /// A plugin that someone else wrote, by its name.
    Plugin(Arc<str>),
}

/// Whether the name is one of a record, and of no secret.
pub(super) fn is_record(name: &str) -> bool {
    name.starts_with(RECORD)
}

/// The name under which it is written down who keeps a secret.
pub fn record_name(name: &str) -> String {
    format!("{RECORD}{name}")
}

/// The value's fingerprint is in it: a value that a person puts in the place of the plugin's is the person's.
fn record(plugin: &str, name: &str, value: &Secret) -> String {
    format!("{plugin}:{}", value.fingerprint(name))
}

/// Secret's name → its record.
#[derive(Default)]
pub(super) struct Records(BTreeMap<String, String>);

impl Records {
    /// Takes the records out of what was loaded.
    pub(super) fn split(values: &mut BTreeMap<String, Secret>) -> Self {
        let names: Vec<String> = values.keys().filter(|name| is_record(name)).cloned().collect();
        let taken = names.into_iter().filter_map(|record| {
            let value = values.remove(&record)?;
            Some((record.strip_prefix(RECORD)?.to_owned(), value.expose().to_owned()))
        });
        Self(taken.collect())
    }

    fn is_of(&self, plugin: &str, name: &str, value: &Secret) -> bool {
        self.0.get(name).is_some_and(|kept| *kept == record(plugin, name, value))
    }

    /// Whether another plugin's record is of this value.
    fn is_of_another(&self, plugin: &str, name: &str, value: &Secret) -> bool {
        let keeper = self.0.get(name).and_then(|record| record.split_once(':'));
        keeper.is_some_and(|(keeper, of)| keeper != plugin && of == value.fingerprint(name))
    }
}

/// Which of these names stand for values that the plugin did not have kept.
pub fn not_kept_by<'n>(
    plugin: &str,
    mut values: BTreeMap<String, Secret>,
    names: impl IntoIterator<Item = &'n String>,
) -> Vec<String> {
    let records = Records::split(&mut values);
    let taken = |name: &&String| values.get(*name).is_some_and(|value| !records.is_of(plugin, name, value));
    names.into_iter().filter(taken).cloned().collect()
}

impl Secrets {
    /// Whether a value of the keeper's may stand under this name. Asked before the value is made; [`Secrets::keep`] asks again.
    pub fn may_keep(&self, keeper: &Keeper, name: &str) -> Result<(), SecretError> {
        let Keeper::Plugin(plugin) = keeper else { return Ok(()) };
        self.allowed(&self.records(), plugin, name)
    }

    /// As [`Secrets::set`], for a plugin: over nothing that another has set, and at most [`MAX_KEPT`] of them.
    pub fn keep(&self, keeper: &Keeper, name: &str, value: Secret) -> Result<(), SecretError> {
        let Keeper::Plugin(plugin) = keeper else { return self.set(name, value) };
        let mut records = self.records();
        self.allowed(&records, plugin, name)?;
        self.check(name, &value)?;
        if self.is_same(name, &value) {
            return Ok(());
        }
        let text = record(plugin, name, &value);
        // Together, so that no crash leaves a value that its plugin may not replace.
        let of_record = (record_name(name), Secret::new(text.as_str()));
        self.backend.store(&[(&of_record.0, &of_record.1), (name, &value)])?;
        records.0.insert(name.to_owned(), text);
        self.make_live(name, value);
        Ok(())
    }

    /// As [`Secrets::generate`], for a plugin. What is there already stays, unless another plugin's it is: then this one has to know.
    pub fn generate_for(&self, keeper: &Keeper, name: &str, bytes: usize) -> Result<(), SecretError> {
        if let (Keeper::Plugin(plugin), Some(value)) = (keeper, self.get(name))
            && self.records().is_of_another(plugin, name, &value)
        {
            return Err(SecretError::KeptByAnother(name.to_owned()));
        }
        if self.exists(name) {
            return Ok(());
        }
        self.keep(keeper, name, super::random(name, bytes)?)
    }

    fn allowed(&self, records: &Records, plugin: &str, name: &str) -> Result<(), SecretError> {
        if !is_secret_name(name) || RECORD.len() + name.len() > MAX_SECRET_NAME || is_record(name) {
            return Err(SecretError::BadName(name.to_owned()));
        }
        let values = self.read();
        match values.get(name) {
            Some(value) if records.is_of(plugin, name, value) => Ok(()),
            Some(_) => Err(SecretError::KeptByAnother(name.to_owned())),
            None => {
                let own = |(name, _): &(&String, _)| values.get(*name).is_some_and(|v| records.is_of(plugin, name, v));
                if records.0.iter().filter(own).count() >= MAX_KEPT {
                    return Err(SecretError::TooMany { plugin: plugin.to_owned() });
                }
                Ok(())
            }
        }
    }

    fn records(&self) -> std::sync::MutexGuard<'_, Records> {
        // A panic while the lock was held cannot leave it half changed: an insert is one step.
        self.records.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MemoryBackend, SecretBackend};
    use super::*;
    use crate::error::CodedError;
    use crate::redact::Redactor;

    fn plugin(name: &str) -> Keeper {
        Keeper::Plugin(name.into())
    }

    fn secrets(values: &[(&str, &str)]) -> Secrets {
        let values = values.iter().map(|(n, v)| ((*n).to_owned(), Secret::new(*v))).collect();
        Secrets::open(Box::new(MemoryBackend(std::sync::Mutex::new(values))), Arc::new(Redactor::new())).unwrap()
    }

    fn code(refused: Result<(), SecretError>) -> String {
        CodedError::from(refused.unwrap_err()).code
    }

    #[test]
    fn a_plugin_replaces_what_it_had_kept_and_nothing_else() {
        let secrets = secrets(&[("PERSONS", "of-a-person"), ("DATABASE_URL", "postgresql://o:p@h/d")]);
        let (a, b) = (plugin("acme"), plugin("other"));
        for name in ["PERSONS", "DATABASE_URL"] {
            assert_eq!(code(secrets.may_keep(&a, name)), "secrets.kept-by-another");
            assert_eq!(code(secrets.keep(&a, name, Secret::new("of-the-attacker"))), "secrets.kept-by-another");
        }
        assert_eq!(secrets.get("PERSONS").unwrap().expose(), "of-a-person");
        secrets.keep(&a, "ACME_KEY", Secret::new("first-value")).unwrap();
        secrets.keep(&a, "ACME_KEY", Secret::new("second-value")).unwrap();
        assert_eq!(code(secrets.keep(&b, "ACME_KEY", Secret::new("of-the-other"))), "secrets.kept-by-another");
        assert_eq!(code(secrets.generate_for(&b, "ACME_KEY", 16)), "secrets.kept-by-another");
        secrets.generate_for(&a, "ACME_KEY", 16).unwrap();
        assert_eq!(secrets.get("ACME_KEY").unwrap().expose(), "second-value");
        // A person's value in its place is the person's.
        secrets.set("ACME_KEY", Secret::new("of-the-person")).unwrap();
        assert_eq!(code(secrets.keep(&a, "ACME_KEY", Secret::new("third-value"))), "secrets.kept-by-another");
        // psn's own plugins keep what they always have.
        secrets.keep(&Keeper::Psn, "DATABASE_URL", Secret::new("postgresql://o:q@h/d")).unwrap();
    }

    #[test]
    fn the_record_is_kept_with_the_value_and_is_no_secret() {
        let backend = Arc::new(MemoryBackend(std::sync::Mutex::default()));
        struct Shared(Arc<MemoryBackend>);
        impl SecretBackend for Shared {
            fn load(&self) -> Result<BTreeMap<String, Secret>, SecretError> {
                self.0.load()
            }
            fn store(&self, pairs: &[(&str, &Secret)]) -> Result<(), SecretError> {
                self.0.store(pairs)
            }
            fn remove(&self, name: &str) -> Result<(), SecretError> {
                self.0.remove(name)
            }
        }
        let open = || Secrets::open(Box::new(Shared(backend.clone())), Arc::new(Redactor::new())).unwrap();
        open().keep(&plugin("acme"), "ACME_KEY", Secret::new("first-value")).unwrap();
        let next = open();
        assert_eq!(next.names(), ["ACME_KEY"]);
        next.keep(&plugin("acme"), "ACME_KEY", Secret::new("second-value")).unwrap();
        assert_eq!(code(open().keep(&plugin("b"), "ACME_KEY", Secret::new("x-value-x"))), "secrets.kept-by-another");
        assert_eq!(code(open().keep(&plugin("b"), "PSN_KEPT_ACME_KEY", Secret::new("b:00"))), "secrets.bad-name");
        let wanted = ["ACME_KEY".to_owned(), "NEW_KEY".to_owned()];
        assert!(not_kept_by("acme", backend.load().unwrap(), &wanted).is_empty());
        assert_eq!(not_kept_by("b", backend.load().unwrap(), &wanted), ["ACME_KEY"]);
    }

    #[test]
    fn a_plugin_has_a_few_secrets_kept_and_no_more() {
        let secrets = secrets(&[]);
        let acme = plugin("acme");
        for n in 0..MAX_KEPT {
            secrets.generate_for(&acme, &format!("ACME_{n}"), 16).unwrap();
        }
        assert_eq!(code(secrets.generate_for(&acme, "ACME_MORE", 16)), "secrets.too-many");
        assert_eq!(code(secrets.keep(&acme, "ACME_MORE", Secret::new("one-more-value"))), "secrets.too-many");
        assert!(!secrets.exists("ACME_MORE"));
        secrets.keep(&acme, "ACME_0", Secret::new("another-value")).unwrap();
        secrets.generate_for(&plugin("other"), "OTHER_1", 16).unwrap();
    }
}
