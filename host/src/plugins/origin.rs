//! Whether a component is psn's own, and what that decides.
use super::component::{ComponentError, Described};
use super::manifest::{HttpService, Manifest, ManifestError};
use super::registry::FirstParty;
use super::vendors::{same_base, vendor_base};
use crate::secret::Keeper;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    FirstParty,
    ThirdParty,
}

/// By the digest: what a name, a lock file or the component says about it counts for nothing.
pub(super) fn origin_of(found: &Described, own: &[FirstParty]) -> Origin {
    if own.iter().any(|own| own.sha256 == found.sha256) { Origin::FirstParty } else { Origin::ThirdParty }
}

/// What psn's own plugins alone may ask for is refused to others.
pub(super) fn foreign(asked: &Manifest) -> Result<(), ComponentError> {
    if asked.own {
        return Ok(());
    }
    asked.foreign()?;
    // What the operator's rules and config/services.toml say of a vendor's service is meant for that one.
    for HttpService { service, base, .. } in &asked.http {
        if let Some(vendor) = vendor_base(service).filter(|vendor| !same_base(vendor, base)) {
            let (service, base) = (service.clone(), base.clone());
            return Err(ManifestError::OwnService { service, base, vendor }.into());
        }
    }
    Ok(())
}

impl Manifest {
    /// For whom its secrets are kept.
    pub fn keeper(&self) -> Keeper {
        if self.own { Keeper::Psn } else { Keeper::Plugin(self.plugin.name.as_str().into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::testing::manifest;

    #[test]
    fn what_is_psn_s_own_is_refused_to_others() {
        let http = |service: &str, base: &str, capture: &str| {
            format!("[[http]]\nservice = {service:?}\nbase = {base:?}\nroutes = [\"GET /a\"]\n{capture}\n")
        };
        let capture = |name: &str| {
            http("web", "https://web.example", &format!("capture = {{ \"GET /a\" = {{ \"/v\" = {name:?} }} }}"))
        };
        for (tables, fine) in [
            (capture("WEB_KEY"), true),
            (capture("-"), true),
            (capture("DATABASE_URL"), false),
            (capture("DATABASE_URL_DIRECT"), false),
            (capture("TRIGGER_PROJECT_REF"), false),
            (capture("TRIGGER_SECRET_KEY"), false),
            ("[secrets]\ngenerate = [\"TRIGGER_SECRET_KEY\"]\n".to_owned(), false),
            (
                "[[tool]]\nname = \"t\"\nargs = [[\"a\"]]\ncapture = [{ args = [\"a\"], text = \"DATABASE_URL\" }]\n"
                    .to_owned(),
                false,
            ),
            (http("neon", "https://console.neon.tech/api/v2", ""), true),
            (http("neon", "https://console.neon.tech/api/v2/", ""), true),
            (http("neon", "https://evil.example/api/v2", ""), false),
            (http("neon", "https://console.neon.tech", ""), false),
            (http("trigger", "https://api.trigger.dev.evil.example", ""), false),
            (http("trigger-env", "https://api.trigger.dev", ""), true),
        ] {
            let asked = manifest(&tables);
            assert!(foreign(&asked).is_ok(), "psn's own: {tables}");
            assert_eq!(foreign(&Manifest { own: false, ..asked }).is_ok(), fine, "{tables}");
        }
    }
}
