use crate::hub::envfile::EnvFile;
use crate::plugins::component::describe;
use crate::plugins::lock::LockFile;
use crate::plugins::manifest::Manifest;

/// A manifest that is read can be written, read again, and asks for the same.
pub(super) fn manifest(data: &[u8]) {
    let Ok(manifest) = Manifest::parse(data) else { return };
    let text = toml::to_string(&manifest).expect("a manifest can be written");
    // Writing spells tables out: what was just under the limit may be just over it.
    if text.len() > crate::plugins::manifest::MAX_MANIFEST_BYTES {
        return;
    }
    let again = Manifest::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{text}\n{e}"));
    assert!(again == manifest || has_nan(&manifest), "{text}");
    assert_eq!(again.capabilities_hash(), manifest.capabilities_hash());
}

/// `nan` is a number in TOML, and differs from itself.
fn has_nan(manifest: &Manifest) -> bool {
    let retry = manifest.task.as_ref().and_then(|t| t.retry.as_ref());
    retry.and_then(|r| r.factor).is_some_and(f64::is_nan)
}

/// A lock file that is read is written in one way only, and says the same.
pub(super) fn lock(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(lock) = LockFile::parse(text) else { return };
    let written = lock.encode().expect("a lock file can be written");
    let again = LockFile::parse(&written).unwrap_or_else(|e| panic!("{written}\n{e}"));
    assert_eq!(again, lock);
    assert_eq!(again.encode().expect("a lock file can be written"), written);
}

/// What is written into an env file is read back, and everything else stays as it was. The value is the file's own first line.
pub(super) fn env_file(data: &[u8]) {
    const NAME: &str = "PSN_WRITTEN";
    let Ok(mut file) = EnvFile::parse(data) else { return };
    let others = |file: &EnvFile| -> Vec<(String, String)> {
        file.iter().filter(|(n, _)| *n != NAME).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
    };
    let before = others(&file);
    let value = String::from_utf8_lossy(data).lines().next().unwrap_or_default().to_owned();
    for value in [value.as_str(), "plain", "with 'quote"] {
        if file.set(NAME, value).is_err() {
            continue;
        }
        let again = EnvFile::parse(file.text().as_bytes()).expect("what was written can be read");
        assert_eq!(again.get(NAME), Some(value));
        assert_eq!(others(&again), before);
    }
}

/// Bytes that are no component are told apart, and what is described was looked at as a whole.
pub(super) fn component(data: &[u8]) {
    let Ok(described) = describe(data) else { return };
    assert_eq!(described.sha256.len(), 64);
    assert!(
        described.wasi || described.imports.iter().all(|i| i.starts_with("psn:plugin/")),
        "{:?}",
        described.imports
    );
}
