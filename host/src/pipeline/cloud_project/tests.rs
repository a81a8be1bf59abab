use std::path::Path;

use super::*;
use crate::pipeline::FIRST_PARTY;
use crate::plugins::registry::Registry;

fn project(runtime: &str, program: &str) -> CloudProject {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::open(folder.path(), FIRST_PARTY);
    let sha256 = hex::encode(Sha256::digest(program));
    let kind = if program == WORKER { Kind::Worker } else { Kind::Whole };
    let program = Program { bytes: program.as_bytes().to_vec(), sha256, kind };
    let (tasks, policy) = (registry.tasks().unwrap(), registry.policy().unwrap());
    CloudProject::new(&tasks, policy, runtime, program, &Compiler::InProcess).unwrap()
}

/// Stands for a program without a compiler.
const WORKER: &str = "worker";

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_same_input_is_the_same_bytes_and_another_is_not() {
    let hash = project("bun-1.4", "psn").content_hash();
    assert_eq!(project("bun-1.4", "psn").content_hash(), hash);
    assert_ne!(project("node-24", "psn").content_hash(), hash);
    assert_ne!(project("bun-1.4", "psm").content_hash(), hash);
}

#[test]
fn the_folder_holds_these_tasks_and_no_others() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("out");
    let bun = project("bun-1.4", "psn");
    bun.write(&folder).unwrap();
    assert_eq!(bun.tasks.contains(&"watchdog".to_owned()), folder.join("src/trigger/watchdog.ts").is_file());
    assert_eq!(std::fs::metadata(folder.join("bin/psn")).unwrap().permissions().mode() & 0o100, 0o100);
    let components = names(&folder.join("components"));
    assert_eq!(components.len(), 2 * bun.tasks.len(), "each with its grants: {components:?}");

    // What tools and people put beside it stays; what another set of tasks left goes.
    std::fs::create_dir_all(folder.join("node_modules/x")).unwrap();
    std::fs::create_dir(folder.join(".git")).unwrap();
    std::fs::write(folder.join(".git/HEAD"), "ref: refs/heads/main").unwrap();
    std::fs::write(folder.join("notes.md"), "mine").unwrap();
    std::fs::write(folder.join("src/trigger/removed.ts"), "x").unwrap();
    std::fs::create_dir(folder.join("src/old")).unwrap();
    let before = std::fs::metadata(folder.join("src/psn.ts")).unwrap().modified().unwrap();
    project("node-24", "psn").write(&folder).unwrap();
    assert!(folder.join("node_modules/x").is_dir());
    assert!(folder.join(".git/HEAD").is_file() && folder.join("notes.md").is_file());
    assert!(!folder.join("src/trigger/removed.ts").exists() && !folder.join("src/old").exists());
    assert!(std::fs::read_to_string(folder.join("src/settings.ts")).unwrap().contains("= 'node-24';"));
    assert_eq!(std::fs::metadata(folder.join("src/psn.ts")).unwrap().modified().unwrap(), before);
}

#[test]
fn a_folder_of_somebody_else_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.txt"), "years of work").unwrap();
    assert_eq!(project("bun-1.4", "psn").write(dir.path()).unwrap_err().code, "task.export-folder");
    assert_eq!(names(dir.path()), ["thesis.txt"]);
    // Nor is it psn's because of a file's name.
    std::fs::write(dir.path().join("psn.json"), "{\"name\": \"thesis\"}").unwrap();
    assert_eq!(project("bun-1.4", "psn").write(dir.path()).unwrap_err().code, "task.export-folder");
    assert_eq!(std::fs::read_to_string(dir.path().join("psn.json")).unwrap(), "{\"name\": \"thesis\"}");
}

#[test]
fn the_runtime_is_one_of_two() {
    let settings = |runtime: &str| BTreeMap::from([(RUNTIME.to_owned(), runtime.to_owned())]);
    assert_eq!(runtime_of(&BTreeMap::new()).unwrap(), "bun-1.4");
    assert_eq!(runtime_of(&settings("node-24")).unwrap(), "node-24");
    // Trigger.dev stops to take plain "bun".
    assert_eq!(runtime_of(&settings("bun")).unwrap_err().code, "config.settings");
}

#[test]
fn a_worker_gets_what_is_compiled_and_its_digest() {
    let files = |program: &str| -> BTreeMap<String, Vec<u8>> {
        project("bun-1.4", program).files.into_iter().map(|(path, file)| (path, file.bytes)).collect()
    };
    let (whole, worker) = (files("psn"), files(WORKER));
    assert!(!whole.keys().any(|path| path.ends_with(".cwasm")));
    let tasks: Vec<&String> = worker.keys().filter(|path| path.starts_with("src/trigger/")).collect();
    for task in &tasks {
        let text = String::from_utf8(worker[*task].clone()).unwrap();
        let named = |field: &str| text.split(&format!("{field}: '")).nth(1).and_then(|rest| rest.split('\'').next());
        let component = named("component").unwrap().split("@sha256-").nth(1).unwrap().trim_end_matches(".wasm");
        let code = &worker[&format!("components/{}.cwasm", component.split('-').next().unwrap())];
        assert_eq!(named("compiled"), Some(digest_name(&hex::encode(Sha256::digest(code))).as_str()));
        // Compiled code is an ELF file, for the cloud's processor.
        assert_eq!((&code[..4], &code[18..20]), (&b"\x7fELF"[..], &[62, 0][..]));
        assert!(!String::from_utf8_lossy(&whole[*task]).contains("compiled"));
    }
    assert_eq!(worker.len(), whole.len() + tasks.len());
    // A deployment is known by its bytes: compiled again, they are the same.
    assert_eq!(files(WORKER), worker);
}
