//! The psn that the deployed tasks start: a program for the machines of Trigger.dev's cloud, whatever this one is.
use std::collections::BTreeMap;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::CodedError;

/// Where Trigger.dev runs tasks: Debian on x86-64.
pub(super) const PLATFORM: &str = "linux-x64";
/// Settings that name another program than the running one, and its digest: a file alone may be any file.
pub const FILE: &str = "trigger.psn_file";
pub const SHA256: &str = "trigger.psn_sha256";
/// An ELF header up to and with its machine.
const HEADER: usize = 20;
const ELF64_LITTLE_ENDIAN: &[u8] = &[0x7f, b'E', b'L', b'F', 2, 1];
const X86_64: [u8; 2] = [62, 0];

pub struct Program {
    pub(super) bytes: Vec<u8>,
    pub(super) sha256: String,
}

impl Program {
    /// The release that the settings name, else the program that runs now, where it is one for the cloud's machines.
    pub fn choose(project: &Path, settings: &BTreeMap<String, String>) -> Result<Self, CodedError> {
        let set = |name: &str| settings.get(name).map(String::as_str).filter(|value| !value.is_empty());
        match (set(FILE), set(SHA256)) {
            (Some(file), Some(digest)) => Self::pinned(&project.join(file), digest),
            (Some(file), None) => Err(unpinned(&project.join(file))),
            (None, _) if cfg!(all(target_os = "linux", target_arch = "x86_64")) => Self::running(),
            (None, _) => Err(missing()),
        }
    }

    fn running() -> Result<Self, CodedError> {
        let path = std::env::current_exe().map_err(|e| unreadable(Path::new("psn"), &e))?;
        Self::of(std::fs::read(&path).map_err(|e| unreadable(&path, &e))?, &path)
    }

    fn pinned(path: &Path, digest: &str) -> Result<Self, CodedError> {
        let program = Self::of(std::fs::read(path).map_err(|e| unreadable(path, &e))?, path)?;
        if !program.sha256.eq_ignore_ascii_case(digest) {
            return Err(CodedError::new(
                "task.program-digest",
                format!("{} has the digest {}, and {SHA256} says {digest}", path.display(), program.sha256),
                ["compare both with the digest that the release was published with".to_owned(), set(SHA256, "DIGEST")],
            ));
        }
        Ok(program)
    }

    fn of(bytes: Vec<u8>, path: &Path) -> Result<Self, CodedError> {
        let is_fit = bytes.len() > HEADER && bytes.starts_with(ELF64_LITTLE_ENDIAN) && bytes[18..20] == X86_64;
        if !is_fit {
            return Err(CodedError::new(
                "task.program-platform",
                format!("{} is no program for {PLATFORM}, which Trigger.dev's machines are", path.display()),
                [set(FILE, "FILE"), set(SHA256, "DIGEST")],
            ));
        }
        let sha256 = hex::encode(Sha256::digest(&bytes));
        Ok(Self { bytes, sha256 })
    }
}

fn set(name: &str, value: &str) -> String {
    format!("psn config set {name} {value}")
}

fn missing() -> CodedError {
    CodedError::new(
        "task.program-missing",
        format!(
            "Trigger.dev's machines are {PLATFORM}, this one is {}-{}: the tasks need a psn built for {PLATFORM}, from its release",
            std::env::consts::OS,
            std::env::consts::ARCH
        ),
        [set(FILE, "FILE"), set(SHA256, "DIGEST")],
    )
}

/// The digest is told, so that it can be compared with the release's, not so that it is believed.
fn unpinned(path: &Path) -> CodedError {
    let found = std::fs::read(path).map(|bytes| hex::encode(Sha256::digest(bytes)));
    let found = found.map_or_else(|e| e.to_string(), |digest| format!("its digest is {digest}"));
    CodedError::new(
        "task.program-digest",
        format!("{FILE} names {}, and no {SHA256} says which program that must be ({found})", path.display()),
        ["compare it with the digest that the release was published with".to_owned(), set(SHA256, "DIGEST")],
    )
}

fn unreadable(path: &Path, e: &std::io::Error) -> CodedError {
    CodedError::new(
        "task.program-missing",
        format!("the psn for the tasks cannot be read: {}: {e}", path.display()),
        [set(FILE, "FILE"), set(SHA256, "DIGEST")],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(machine: u8) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(ELF64_LITTLE_ENDIAN);
        bytes[18] = machine;
        bytes
    }

    fn choose(dir: &Path, settings: &[(&str, &str)]) -> Result<Program, CodedError> {
        Program::choose(dir, &settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn a_release_is_taken_by_its_digest_and_for_its_machine() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("psn"), elf(62)).unwrap();
        std::fs::write(dir.path().join("psn-arm"), elf(183)).unwrap();
        std::fs::write(dir.path().join("script"), "#!/bin/sh\necho a script is no program for a worker\n").unwrap();
        let digest = |name: &str| hex::encode(Sha256::digest(std::fs::read(dir.path().join(name)).unwrap()));
        let program = choose(dir.path(), &[(FILE, "psn"), (SHA256, &digest("psn").to_uppercase())]).unwrap();
        assert_eq!(program.sha256, digest("psn"));
        for (file, pinned, code) in [
            ("psn", Some("00".repeat(32)), "task.program-digest"),
            ("psn", None, "task.program-digest"),
            ("psn-arm", Some(digest("psn-arm")), "task.program-platform"),
            ("script", Some(digest("script")), "task.program-platform"),
            ("absent", Some("00".repeat(32)), "task.program-missing"),
        ] {
            let mut settings = vec![(FILE, file)];
            settings.extend(pinned.as_deref().map(|digest| (SHA256, digest)));
            let error = choose(dir.path(), &settings).err().unwrap();
            assert_eq!(error.code, code, "{file}: {}", error.message);
            assert!(error.fix.iter().any(|fix| fix.starts_with("psn config set trigger.psn_")), "{:?}", error.fix);
        }
    }

    #[test]
    fn without_settings_it_is_the_running_program_on_the_clouds_platform() {
        let chosen = choose(Path::new("."), &[]);
        match cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            true => {
                let running = std::fs::read(std::env::current_exe().unwrap()).unwrap();
                assert_eq!(chosen.ok().map(|program| program.bytes.len()), Some(running.len()));
            }
            false => assert_eq!(chosen.err().map(|error| error.code), Some("task.program-missing".to_owned())),
        }
    }
}
