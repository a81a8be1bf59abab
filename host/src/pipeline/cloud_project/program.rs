//! The program that the deployed tasks start, for the machines of Trigger.dev's cloud, whatever this one is: psn's worker, which runs
//! what was compiled for it, or a whole psn, which compiles for itself.
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::ProgramFacts;
use crate::error::CodedError;
use crate::worker::Identity;

/// Where Trigger.dev runs tasks: Debian on x86-64.
pub(super) const PLATFORM: &str = "linux-x64";
/// Settings that name another program than psn's own choice, and its digest: a file alone may be any file.
pub const FILE: &str = "trigger.psn_file";
pub const SHA256: &str = "trigger.psn_sha256";
/// An ELF header up to and with its machine.
const HEADER: usize = 20;
const ELF64_LITTLE_ENDIAN: &[u8] = &[0x7f, b'E', b'L', b'F', 2, 1];
const X86_64: [u8; 2] = [62, 0];

/// The worker that this psn was built with: see build.rs.
struct Embedded {
    deflated: &'static [u8],
    size: usize,
    sha256: &'static str,
}

static EMBEDDED: Option<Embedded> = include!(concat!(env!("OUT_DIR"), "/worker.rs"));

/// What has to lie beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The component alone.
    Whole,
    /// The component's compiled code too.
    Worker,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Kind::Whole => "psn",
            Kind::Worker => "psn-worker",
        }
    }
}

pub struct Program {
    pub(super) bytes: Vec<u8>,
    pub(super) sha256: String,
    pub(super) kind: Kind,
}

impl Program {
    /// What the settings name, else the worker that this psn was built with, else the psn that runs now, where it is one for the cloud's
    /// machines.
    pub fn choose(project: &Path, settings: &BTreeMap<String, String>) -> Result<Self, CodedError> {
        let set = |name: &str| settings.get(name).map(String::as_str).filter(|value| !value.is_empty());
        match (set(FILE), set(SHA256), &EMBEDDED) {
            (Some(file), Some(digest), _) => Self::pinned(&project.join(file), digest),
            (Some(file), None, _) => Err(unpinned(&project.join(file))),
            (None, _, Some(embedded)) => Self::embedded(embedded),
            (None, _, None) if cfg!(all(target_os = "linux", target_arch = "x86_64")) => Self::running(),
            (None, _, None) => Err(missing()),
        }
    }

    fn embedded(embedded: &Embedded) -> Result<Self, CodedError> {
        let path = Path::new("the worker that this psn was built with");
        let mut bytes = Vec::with_capacity(embedded.size);
        let mut decoder = flate2::read::DeflateDecoder::new(embedded.deflated);
        decoder.read_to_end(&mut bytes).map_err(|e| unreadable(path, &e))?;
        Self::with_digest(bytes, path, embedded.sha256)
    }

    /// It compiles for itself, whatever else is in its bytes.
    fn running() -> Result<Self, CodedError> {
        let path = std::env::current_exe().map_err(|e| unreadable(Path::new("psn"), &e))?;
        let bytes = std::fs::read(&path).map_err(|e| unreadable(&path, &e))?;
        check_platform(&bytes, &path)?;
        Ok(Self { sha256: digest_of(&bytes), bytes, kind: Kind::Whole })
    }

    fn pinned(path: &Path, digest: &str) -> Result<Self, CodedError> {
        Self::with_digest(std::fs::read(path).map_err(|e| unreadable(path, &e))?, path, digest)
    }

    fn with_digest(bytes: Vec<u8>, path: &Path, digest: &str) -> Result<Self, CodedError> {
        check_platform(&bytes, path)?;
        let sha256 = digest_of(&bytes);
        if !sha256.eq_ignore_ascii_case(digest) {
            return Err(CodedError::new(
                "task.program-digest",
                format!("{} has the digest {sha256}, and {SHA256} says {digest}", path.display()),
                ["compare both with the digest that the release was published with".to_owned(), set(SHA256, "DIGEST")],
            ));
        }
        let kind = match Identity::of(&bytes) {
            None => Kind::Whole,
            Some(worker) if worker == Identity::own() => Kind::Worker,
            Some(worker) => return Err(foreign(path, &worker)),
        };
        Ok(Self { bytes, sha256, kind })
    }

    pub fn facts(&self) -> ProgramFacts {
        ProgramFacts { kind: self.kind.as_str(), sha256: self.sha256.clone(), bytes: self.bytes.len() }
    }
}

fn digest_of(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn check_platform(bytes: &[u8], path: &Path) -> Result<(), CodedError> {
    if bytes.len() > HEADER && bytes.starts_with(ELF64_LITTLE_ENDIAN) && bytes[18..20] == X86_64 {
        return Ok(());
    }
    Err(CodedError::new(
        "task.program-platform",
        format!("{} is no program for {PLATFORM}, which Trigger.dev's machines are", path.display()),
        [set(FILE, "FILE"), set(SHA256, "DIGEST")],
    ))
}

/// Compiled code is for one engine, and psn's own components are known by digest: a worker of another build would refuse both in the
/// cloud, at its first run.
fn foreign(path: &Path, worker: &Identity) -> CodedError {
    let own = Identity::own();
    let said = if worker.version == own.version {
        format!("is psn-worker {} of another build than this psn's: {}, not {}", own.version, worker.build, own.build)
    } else {
        format!("is psn-worker {}, and this psn is {}", worker.version, own.version)
    };
    CodedError::new(
        "task.program-version",
        format!("{} {said}; it would not run what this psn compiles", path.display()),
        [format!("psn config unset {FILE}"), set(FILE, "FILE"), set(SHA256, "DIGEST")],
    )
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
    fn a_worker_is_taken_where_this_psn_compiles_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let pinned = |bytes: &[u8]| {
            std::fs::write(dir.path().join("program"), bytes).unwrap();
            choose(dir.path(), &[(FILE, "program"), (SHA256, &digest_of(bytes))])
        };
        let own = [&elf(62)[..], &crate::worker::marker()].concat();
        assert_eq!(pinned(&own).unwrap().kind, Kind::Worker);
        assert_eq!(pinned(&elf(62)).unwrap().kind, Kind::Whole);
        let Identity { version, build } = Identity::own();
        let text = String::from_utf8_lossy(&crate::worker::marker()).into_owned();
        let other_build = build.chars().rev().collect::<String>();
        for (other, said) in [
            (text.replace(&build, &other_build), other_build.as_str()),
            (text.replace(&version, "0.0.99"), "psn-worker 0.0.99"),
        ] {
            let error = pinned(&[&elf(62)[..], other.as_bytes()].concat()).err().unwrap();
            assert_eq!(error.code, "task.program-version");
            assert!(error.message.contains(said), "{}", error.message);
        }
    }

    #[test]
    fn what_is_embedded_is_taken_if_it_is_whole() {
        use flate2::{Compression, write::DeflateEncoder};
        use std::io::Write as _;
        let bytes = [&elf(62)[..], &crate::worker::marker()].concat();
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&bytes).unwrap();
        let deflated: &'static [u8] = encoder.finish().unwrap().leak();
        let embedded = |deflated, sha256: String| {
            Program::embedded(&Embedded { deflated, size: bytes.len(), sha256: sha256.leak() })
        };
        let program = embedded(deflated, digest_of(&bytes)).unwrap();
        assert_eq!((program.bytes, program.kind), (bytes.clone(), Kind::Worker));
        assert_eq!(embedded(deflated, "0".repeat(64)).err().unwrap().code, "task.program-digest");
        let cut = embedded(&deflated[..deflated.len() / 2], digest_of(&bytes)).err().unwrap();
        assert_eq!(cut.code, "task.program-missing");
    }

    #[test]
    fn without_settings_it_is_what_psn_was_built_with_or_the_running_program() {
        let chosen = choose(Path::new("."), &[]);
        if let Some(embedded) = &EMBEDDED {
            assert_eq!(chosen.ok().map(|program| program.sha256), Some(embedded.sha256.to_owned()));
        } else if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            let running = std::fs::read(std::env::current_exe().unwrap()).unwrap();
            assert_eq!(
                chosen.ok().map(|program| (program.bytes.len(), program.kind)),
                Some((running.len(), Kind::Whole))
            );
        } else {
            assert_eq!(chosen.err().map(|error| error.code), Some("task.program-missing".to_owned()));
        }
    }
}
