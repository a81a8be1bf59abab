use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use psn_bindings::imports::psn::plugin::state::Host;

use super::{MAX_KEY, MAX_NOTES, MAX_VALUE, StateNotes};
use crate::atomic;
use crate::capabilities::View;
use crate::error::CodedError;
use crate::hub::{FileError, access};

/// Notes that cannot be trusted stop the call: a step that took them for absent could make everything a second time.
#[derive(Debug, thiserror::Error)]
enum NotesError {
    #[error("its notes cannot be read: {0}")]
    Unreadable(#[source] FileError),
    #[error("its notes in {} are damaged: {source}", .path.display())]
    Damaged { path: PathBuf, source: serde_json::Error },
}

impl NotesError {
    /// Without its notes a step looks for what it made by its name, and adopts it.
    fn coded(&self, plugin: &str) -> CodedError {
        let fix = match self {
            NotesError::Unreadable(e) => e.coded().fix,
            NotesError::Damaged { path, .. } => vec![access::aside(path)],
        };
        let again = "psn run setup".to_owned();
        CodedError::new(
            format!("{plugin}.state-not-understood"),
            format!("{plugin}: {self}"),
            fix.into_iter().chain([again]),
        )
    }
}

impl StateNotes {
    /// Before a call: in it a guest could say no more than that it was stopped.
    pub(crate) fn check(&self, plugin: &str) -> Result<(), CodedError> {
        let file = self.file.as_deref();
        file.map_or(Ok(()), |file| read(file).map(drop)).map_err(|e| e.coded(plugin))
    }
}

type Notes = BTreeMap<String, String>;

fn read(path: &Path) -> Result<Notes, NotesError> {
    match std::fs::read(path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|source| NotesError::Damaged { path: path.to_owned(), source })
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Notes::new()),
        Err(source) => Err(NotesError::Unreadable(FileError::read(path)(source))),
    }
}

fn write(path: &Path, notes: &Notes) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    atomic::write(path, &serde_json::to_vec_pretty(notes)?, 0o600)
}

impl View<'_, StateNotes> {
    async fn notes(&mut self) -> wasmtime::Result<&mut Notes> {
        if self.cap.notes.is_none() {
            let read = match self.cap.file.clone() {
                Some(file) => tokio::task::spawn_blocking(move || read(&file)).await??,
                None => Notes::new(),
            };
            self.cap.notes = Some(read);
        }
        Ok(self.cap.notes.get_or_insert_default())
    }

    /// Only what is on disk counts: where writing fails, the notes are as before.
    async fn change(&mut self, change: impl FnOnce(&mut Notes)) -> wasmtime::Result<Result<(), String>> {
        let mut changed = self.notes().await?.clone();
        change(&mut changed);
        if changed.len() > MAX_NOTES {
            return Ok(Err(format!("a plugin keeps at most {MAX_NOTES} notes")));
        }
        if let Some(file) = self.cap.file.clone() {
            let copy = changed.clone();
            if let Err(e) = tokio::task::spawn_blocking(move || write(&file, &copy)).await? {
                return Ok(Err(format!("the note could not be kept: {e}")));
            }
        }
        self.cap.notes = Some(changed);
        Ok(Ok(()))
    }
}

impl Host for View<'_, StateNotes> {
    async fn get(&mut self, key: String) -> wasmtime::Result<Option<String>> {
        self.call.meter.host_call(1)?;
        let note = self.notes().await?.get(&key).cloned();
        // What was written down before anyone knew that it is a secret.
        Ok(note.map(|note| self.call.redact("a note", &note).into_owned()))
    }

    async fn put(&mut self, key: String, value: String) -> wasmtime::Result<Result<(), String>> {
        self.call.meter.host_call(1)?;
        if key.is_empty() || key.len() > MAX_KEY {
            return Ok(Err(format!("a note's name has 1 to {MAX_KEY} bytes")));
        }
        if value.len() > MAX_VALUE {
            return Ok(Err(format!("a note has at most {MAX_VALUE} bytes, and this one {}", value.len())));
        }
        self.change(|notes| {
            notes.insert(key, value);
        })
        .await
    }

    async fn delete(&mut self, key: String) -> wasmtime::Result<Result<(), String>> {
        self.call.meter.host_call(1)?;
        self.change(|notes| {
            notes.remove(&key);
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::testing::Rig;

    #[tokio::test]
    async fn a_note_is_on_disk_when_put_returns_and_another_call_finds_it() {
        let dir = tempfile::tempdir().unwrap();
        let notes = || StateNotes::new(dir.path().join("state/ab12cd34"), "tester");
        let mut rig = Rig::new(notes());
        assert_eq!(rig.view().get("intent".into()).await.unwrap(), None);
        rig.view().put("intent".into(), "{\"name\":\"psn-hub-1\"}".into()).await.unwrap().unwrap();
        let mut later = Rig::new(notes());
        assert_eq!(later.view().get("intent".into()).await.unwrap().as_deref(), Some("{\"name\":\"psn-hub-1\"}"));
        later.view().delete("intent".into()).await.unwrap().unwrap();
        assert_eq!(Rig::new(notes()).view().get("intent".into()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_secret_in_a_note_does_not_come_back() {
        let mut rig = Rig::new(StateNotes::memory());
        rig.view().put("seen".into(), "uri=postgresql://o:npg_later@h/db".into()).await.unwrap().unwrap();
        rig.secret("DATABASE_URL", "postgresql://o:npg_later@h/db");
        assert_eq!(rig.view().get("seen".into()).await.unwrap().as_deref(), Some("uri=[redacted]"));
        assert_eq!(rig.call.leaks, ["a note"]);
    }

    #[tokio::test]
    async fn bounds() {
        let mut rig = Rig::new(StateNotes::memory());
        for (key, value) in [
            (String::new(), String::new()),
            ("k".repeat(MAX_KEY + 1), String::new()),
            ("k".into(), "v".repeat(MAX_VALUE + 1)),
        ] {
            assert!(rig.view().put(key, value).await.unwrap().is_err());
        }
        for n in 0..MAX_NOTES {
            rig.view().put(n.to_string(), String::new()).await.unwrap().unwrap();
        }
        assert!(rig.view().put("one more".into(), String::new()).await.unwrap().is_err());
        rig.view().put("0".into(), "changed".into()).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn damaged_notes_stop_the_call_and_stay_as_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tester.json");
        std::fs::write(&file, "{\"a\":").unwrap();
        let mut rig = Rig::new(StateNotes::new(dir.path().to_owned(), "tester"));
        let error = rig.view().get("a".into()).await.unwrap_err().to_string();
        assert!(error.contains("tester.json"), "{error}");
        let before = StateNotes::new(dir.path().to_owned(), "tester").check("tester").unwrap_err();
        assert_eq!(before.code, "tester.state-not-understood");
        assert_eq!(before.fix, [format!("mv {0} {0}.old", file.display()), "psn run setup".to_owned()]);
        assert!(rig.view().put("a".into(), "b".into()).await.is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "{\"a\":");
    }
}
