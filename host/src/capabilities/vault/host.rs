use psn_bindings::imports::psn::plugin::vault::Host;

use super::seal::{open, seal};
use super::{KEY, MAX_PLAINTEXT, Vault};
use crate::capabilities::View;
use crate::plugins::manifest::covers;
use crate::secret::Secret;

impl View<'_, Vault> {
    /// The hub's key, for a context that was granted.
    fn key(&self, context: &str) -> Result<Secret, String> {
        if !covers(&self.cap.contexts, context) {
            let context: String = context.chars().filter(|c| !c.is_control()).take(100).collect();
            return Err(format!(
                "not granted; it would be by this line in plugin.toml: [vault] contexts = [\"{context}\"]"
            ));
        }
        self.cap.secrets.get(KEY).ok_or_else(|| format!("this hub has no {KEY} yet: psn run setup makes one"))
    }
}

impl Host for View<'_, Vault> {
    fn seal(&mut self, plaintext: Vec<u8>, context: String) -> wasmtime::Result<Result<String, String>> {
        self.call.meter.host_call(1)?;
        if plaintext.len() > MAX_PLAINTEXT {
            return Ok(Err(format!("at most {MAX_PLAINTEXT} bytes are sealed at once")));
        }
        Ok(self.key(&context).and_then(|key| seal(key.expose(), &plaintext, &context).map_err(|e| e.to_string())))
    }

    fn open(&mut self, sealed: String, context: String) -> wasmtime::Result<Result<Vec<u8>, String>> {
        self.call.meter.host_call(1)?;
        // Base64 of the largest value, with what surrounds it.
        if sealed.len() > 2 * MAX_PLAINTEXT {
            return Ok(Err("that is longer than anything that was sealed here".to_owned()));
        }
        Ok(self
            .key(&context)
            .and_then(|key| open(key.expose(), &sealed, &context).map(|p| p.to_vec()).map_err(|e| e.to_string())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::testing::{Rig, manifest};

    #[test]
    fn only_granted_contexts_and_only_with_a_key() {
        let mut rig = Rig::with_secrets(|s| Vault::new(&manifest("[vault]\ncontexts = [\"oauth:*\"]\n"), s));
        assert!(rig.view().seal(b"t".to_vec(), "oauth:x".into()).unwrap().unwrap_err().contains(KEY));
        rig.secret(KEY, &"0f".repeat(32));
        let sealed = rig.view().seal(b"t".to_vec(), "oauth:x".into()).unwrap().unwrap();
        assert_eq!(rig.view().open(sealed.clone(), "oauth:x".into()).unwrap().unwrap(), b"t");
        assert!(rig.view().open(sealed.clone(), "oauth:y".into()).unwrap().is_err());
        let refused = rig.view().open(sealed, "keys:x".into()).unwrap().unwrap_err();
        assert!(refused.contains("[vault] contexts = [\"keys:x\"]"), "{refused}");
        assert!(rig.view().seal(vec![0; MAX_PLAINTEXT + 1], "oauth:x".into()).unwrap().is_err());
    }
}
