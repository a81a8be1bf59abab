//! Secrets by name. A plugin never sees a value: it asks whether one is there, and writes `{{secret:NAME}}` where a service
//! that the manifest allows is to receive it.

use crate::{Failure, sys};

pub fn exists(name: &str) -> bool {
    sys::secret_exists(name)
}

/// Changes when the value does, and tells nothing else. None where there is no such secret.
pub fn fingerprint(name: &str) -> Option<String> {
    sys::secret_fingerprint(name)
}

/// Has the host make `bytes` random bytes and keep them, hex encoded, unless the secret exists.
pub fn generate(name: &str, bytes: u32) -> Result<(), Failure> {
    sys::secret_generate(name, bytes).map_err(|message| {
        Failure::new("secret-not-generated", message).fix(
            "Add the name to [secrets] generate in plugin.toml, build the plugin again, and agree to its new rights",
        )
    })
}

/// Stands for the secret's value in a JSON body.
pub fn reference(name: &str) -> String {
    format!("{{{{secret:{name}}}}}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn references() {
        assert_eq!(super::reference("HUB_KEY"), "{{secret:HUB_KEY}}");
    }
}
