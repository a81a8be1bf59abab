//! What psn puts into a store, and into a bundle.
use super::{ComponentStore, Granted, Reference, StoreError};
use crate::atomic;
use crate::plugins::OperatorPolicy;
use crate::plugins::registry::Installed;

impl ComponentStore {
    /// Idempotent.
    pub(in crate::pipeline) fn put(&self, installed: &Installed, policy: &OperatorPolicy) -> Result<(), StoreError> {
        std::fs::create_dir_all(&self.0)?;
        atomic::sweep(&self.0)?;
        let [(component, bytes), (grant, granted)] = files(installed, policy)?;
        // The component first: a grant without it is an answer of `Missing`, not a run of something else.
        let component = self.0.join(component);
        if !component.is_file() {
            atomic::write(&component, &bytes, 0o600)?;
        }
        atomic::write(&self.0.join(grant), &granted, 0o600)?;
        Ok(())
    }
}

/// The component and what it was granted, each with its name in a store.
pub(in crate::pipeline) fn files(
    installed: &Installed,
    policy: &OperatorPolicy,
) -> Result<[(String, Vec<u8>); 2], StoreError> {
    let reference = Reference::of(installed);
    // A policy that takes nothing away is not kept: whatever else it says, it does not matter here.
    let policy = if reference.effective.is_some() { policy.text().to_owned() } else { String::new() };
    let granted = serde_json::to_vec_pretty(&Granted { lock: installed.lock.clone(), policy })?;
    Ok([(format!("{}.wasm", installed.sha256), installed.component.to_vec()), (reference.grant_file(), granted)])
}

impl Reference {
    fn of(installed: &Installed) -> Self {
        let effective = (!installed.manifest.withheld.is_empty()).then(|| installed.manifest.capabilities_hash());
        Self { sha256: installed.sha256.clone(), effective }
    }
}

/// Where a deployment says a task's component is.
pub(in crate::pipeline) fn reference(installed: &Installed) -> String {
    format!("components/{}@sha256-{}.wasm", installed.manifest.plugin.name, Reference::of(installed).hashes())
}
