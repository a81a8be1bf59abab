//! Why a plugin is not there, does not run, or was not added.
use std::path::PathBuf;
use std::sync::Arc;

use super::component::ComponentError;
use super::consent::ConsentNeeded;
use super::lock::{LockDifference, LockError};
use super::policy::PolicyError;
use super::registry::Origin;
use crate::error::{CodedError, coded_by_value};

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("there is no plugin {name}; there are {}", .known.join(", "))]
    Unknown { name: String, known: Vec<String> },
    #[error("{name} was not added here; {}", if .added.is_empty() { "nothing was".to_owned() } else { format!("there are {}", .added.join(", ")) })]
    NotAdded { name: String, added: Vec<String> },
    #[error("the plugin is not the one that was granted\n{difference}")]
    LockMismatch { difference: LockDifference, origin: Origin },
    /// A plugin that was added is not what a person agreed to any more, or may do something else: someone has to agree again.
    #[error("{} is not what was granted{}", .consent.name, difference(.consent))]
    Changed {
        consent: Box<ConsentNeeded>,
        /// psn's copy of the component.
        file: PathBuf,
    },
    #[error("{name} is not one of psn's own plugins, and the policy allows no others")]
    ThirdParty { name: String },
    #[error(transparent)]
    Policy(Arc<PolicyError>),
    #[error("the component of {name}, {}, is gone", .path.display())]
    Missing { name: String, path: PathBuf },
    #[error("{} cannot be read: {source}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Lock(Arc<LockError>),
    #[error("{plugin}: {source}")]
    Component { plugin: String, source: ComponentError },
}

fn difference(consent: &ConsentNeeded) -> String {
    consent.difference.as_ref().map(|d| format!("\n{d}")).unwrap_or_default()
}

impl From<LockError> for RegistryError {
    fn from(e: LockError) -> Self {
        RegistryError::Lock(Arc::new(e))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AddError {
    #[error("{} asks for consent", .0.name)]
    ConsentNeeded(Box<ConsentNeeded>),
    #[error("the grant {given} is not one for this component")]
    WrongGrant { given: String, needed: Box<ConsentNeeded> },
    #[error("{} cannot be read: {source}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: {source}", .path.display())]
    Component { path: PathBuf, source: ComponentError },
    #[error("{0} is a name of psn's own")]
    NameTaken(String),
    #[error("{} cannot be written: {source}", .path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{name} is not one of psn's own plugins, and the policy allows no others")]
    ThirdParty { name: String },
    #[error(transparent)]
    Policy(Arc<PolicyError>),
    #[error(transparent)]
    Lock(Arc<LockError>),
}

impl From<LockError> for AddError {
    fn from(e: LockError) -> Self {
        AddError::Lock(Arc::new(e))
    }
}

coded_by_value!(RegistryError, AddError);

const ALLOW: &str = "If you are the operator and mean to allow it: third-party = true in config/policy.toml.";

impl From<&RegistryError> for CodedError {
    fn from(e: &RegistryError) -> Self {
        let message = e.to_string();
        match e {
            RegistryError::Unknown { known, .. } => {
                CodedError::new("plugin.unknown", message, [format!("Use one of: {}.", known.join(", "))])
            }
            RegistryError::NotAdded { .. } => CodedError::new("plugin.not-added", message, ["psn plugin list"]),
            RegistryError::LockMismatch { origin: Origin::FirstParty, .. } => CodedError::new(
                "plugin.lock-mismatch",
                message,
                [
                    "psn's own plugin is not the one that psn.lock pins, or psn is damaged: remove the plugin's entry from psn.lock, or install psn again.",
                ],
            ),
            RegistryError::LockMismatch { difference, .. } => CodedError::new(
                "plugin.lock-mismatch",
                message,
                [format!("Add {} again, and look at what it asks for before you agree.", difference.name)],
            ),
            RegistryError::Missing { name, .. } => {
                CodedError::new("plugin.component-missing", message, [format!("Add {name} again from its file.")])
            }
            RegistryError::Read { path, .. } => CodedError::new(
                "plugin.component-unreadable",
                message,
                [format!("Make {} readable for the account that runs psn.", path.display())],
            ),
            RegistryError::Changed { consent, .. } => CodedError::new(
                "plugin.consent-needed",
                message,
                [format!("psn plugin diff {}", consent.name), "psn plugin list".to_owned()],
            ),
            RegistryError::ThirdParty { name } => CodedError::new(
                "plugin.third-party-forbidden",
                message,
                [format!("psn plugin remove {name}"), ALLOW.to_owned()],
            ),
            RegistryError::Policy(e) => e.as_ref().into(),
            RegistryError::Lock(e) => e.as_ref().into(),
            RegistryError::Component { source, .. } => CodedError { message, ..source.into() },
        }
    }
}

impl From<&AddError> for CodedError {
    fn from(e: &AddError) -> Self {
        let message = e.to_string();
        match e {
            AddError::ConsentNeeded(needed) => CodedError::new(
                "plugin.consent-needed",
                message,
                [format!("Agree to what it asks for with the grant {}.", needed.grant)],
            ),
            AddError::WrongGrant { needed, .. } => CodedError::new(
                "plugin.wrong-grant",
                message,
                [format!("Look at what it asks for now; the grant for that is {}.", needed.grant)],
            ),
            AddError::Read { .. } => CodedError::new(
                "plugin.component-unreadable",
                message,
                ["Name a component's file (.wasm) that can be read."],
            ),
            AddError::Component { source, .. } => CodedError { message, ..source.into() },
            AddError::NameTaken(_) => {
                CodedError::new("plugin.name-taken", message, ["Give the plugin another name in its plugin.toml."])
            }
            AddError::Write { .. } => CodedError::new(
                "plugin.lock-unwritable",
                message,
                [
                    "Make the project's folder writable for the account that runs psn, and see that its disk is not full.",
                ],
            ),
            AddError::ThirdParty { .. } => CodedError::new("plugin.third-party-forbidden", message, [ALLOW]),
            AddError::Policy(e) => e.as_ref().into(),
            AddError::Lock(e) => e.as_ref().into(),
        }
    }
}
