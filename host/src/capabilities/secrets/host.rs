use psn_bindings::imports::psn::plugin::secrets::Host;

use super::SecretsCap;
use crate::capabilities::View;

impl View<'_, SecretsCap> {
    fn may_ask(&mut self, name: &str) -> bool {
        match self.cap.policy.may_ask(name) {
            Ok(()) => true,
            Err(warning) => {
                if let Some(warning) = warning {
                    self.call.warn(warning);
                }
                false
            }
        }
    }
}

impl Host for View<'_, SecretsCap> {
    fn exists(&mut self, name: String) -> wasmtime::Result<bool> {
        self.call.meter.host_call(1)?;
        Ok(self.may_ask(&name) && self.cap.secrets.exists(&name))
    }

    fn fingerprint(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        self.call.meter.host_call(1)?;
        Ok(if self.may_ask(&name) { self.cap.secrets.fingerprint(&name) } else { None })
    }

    async fn generate(&mut self, name: String, bytes: u32) -> wasmtime::Result<Result<(), String>> {
        self.call.meter.host_call(1)?;
        if let Err(refused) = self.cap.policy.may_generate(&name, bytes) {
            return Ok(Err(refused));
        }
        let (secrets, keeper) = (self.cap.secrets.clone(), self.cap.keeper.clone());
        // Keeping a secret waits for the disk.
        let made = tokio::task::spawn_blocking(move || secrets.generate_for(&keeper, &name, bytes as usize)).await?;
        Ok(made.map_err(|e| self.call.redact("a secret's error", &e.to_string()).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::testing::{Rig, manifest};

    #[tokio::test]
    async fn a_guest_learns_that_a_secret_is_there_and_nothing_more() {
        let mut rig = Rig::with_secrets(|secrets| {
            SecretsCap::new(&manifest("[secrets]\nnames = [\"KNOWN\", \"ABSENT\"]\ngenerate = [\"MADE\"]\n"), secrets)
        });
        rig.secret("KNOWN", "value-of-known");
        rig.secret("OTHER", "value-of-other");
        assert!(rig.view().exists("KNOWN".into()).unwrap());
        assert!(!rig.view().exists("ABSENT".into()).unwrap());
        assert!(!rig.view().exists("OTHER".into()).unwrap(), "not granted");
        assert_eq!(rig.view().fingerprint("OTHER".into()).unwrap(), None);
        let warnings = rig.warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("[secrets] names = [\"OTHER\"]"));

        let before = rig.view().fingerprint("KNOWN".into()).unwrap().unwrap();
        assert_eq!(before.len(), 8);
        rig.secret("KNOWN", "another-value");
        assert_ne!(rig.view().fingerprint("KNOWN".into()).unwrap().unwrap(), before);
    }

    #[tokio::test]
    async fn a_secret_is_made_once() {
        let mut rig =
            Rig::with_secrets(|secrets| SecretsCap::new(&manifest("[secrets]\ngenerate = [\"MADE\"]\n"), secrets));
        rig.view().generate("MADE".into(), 32).await.unwrap().unwrap();
        let value = rig.secrets.get("MADE").unwrap();
        assert_eq!(value.expose().len(), 64);
        rig.view().generate("MADE".into(), 32).await.unwrap().unwrap();
        assert_eq!(rig.secrets.get("MADE").unwrap().expose(), value.expose());
        assert!(rig.view().generate("OTHER".into(), 32).await.unwrap().is_err());
        assert!(!rig.secrets.exists("OTHER"));
    }
}
