//! Builds the first-party plugins and pins them: the binary embeds each component with its digest and the hash of what its
//! manifest asks for. The runtime verifies both, as it does for third-party plugins from psn.lock. psn's worker, which is given its
//! component, embeds no bytes, and knows psn's own by digest and hash all the same.
//!
//! `PSN_WORKER_FILE` names the worker that psn is to deploy with its tasks; psn embeds it, compressed.
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use flate2::Compression;
use flate2::write::DeflateEncoder;
use psn_plugin_build::{FIRST_PARTY, build, nested_target_dir, rerun_if_changed, workspace_of};
use sha2::{Digest, Sha256};

#[path = "src/plugins/manifest.rs"]
#[allow(dead_code, unreachable_pub, reason = "the host's own code; only what pins a plugin is used here")]
mod manifest;

#[path = "src/plugins/names.rs"]
#[allow(dead_code, unreachable_pub, reason = "what manifest.rs refers to")]
mod names;

#[path = "src/plugins/withheld.rs"]
#[allow(dead_code, unreachable_pub, reason = "what manifest.rs refers to")]
mod withheld;

/// What compiled code depends on besides the component: the compiler's and the engine's configuration, as they are written down, and
/// wasmtime's version.
const ENGINE: [&str; 2] = ["src/runtime/engine.rs", "src/plugins/component.rs"];
const LOCK_FILE: &str = "../Cargo.lock";

fn main() {
    println!("cargo::rerun-if-env-changed=PSN_PLUGINS_DIR");
    println!("cargo::rerun-if-env-changed=PSN_WORKER_FILE");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../migrations");
    let components = match env::var_os("PSN_PLUGINS_DIR") {
        Some(dir) => prebuilt(Path::new(&dir)),
        None => built(),
    };
    let is_full = env::var_os("CARGO_FEATURE_FULL").is_some();
    let mut own = Vec::new();
    let mut table = String::from("&[\n");
    for ((name, _), path) in FIRST_PARTY.iter().zip(&components) {
        let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let manifest =
            fs::read(Path::new(&var("CARGO_MANIFEST_DIR")).join("../plugins").join(name).join("plugin.toml"))
                .unwrap_or_else(|e| panic!("plugins/{name}/plugin.toml: {e}"));
        let manifest =
            manifest::Manifest::parse(&manifest).unwrap_or_else(|e| panic!("plugins/{name}/plugin.toml: {e}"));
        assert_eq!(manifest.plugin.name, *name, "plugins/{name}/plugin.toml names another plugin");
        println!("cargo::rerun-if-changed=../plugins/{name}/plugin.toml");
        let embedded =
            if is_full { format!("include_bytes!({:?})", path.display().to_string()) } else { "&[]".to_owned() };
        let (sha256, wishes) = (hex::encode(Sha256::digest(&bytes)), manifest.capabilities_hash());
        writeln!(
            table,
            "    FirstParty {{ name: {name:?}, component: {embedded}, sha256: {sha256:?}, capabilities_hash: {wishes:?} }},",
        )
        .expect("writing to a string");
        own.push(format!("{name} {sha256} {wishes}"));
    }
    table.push_str("]\n");
    fs::write(Path::new(&var("OUT_DIR")).join("first_party.rs"), table).expect("OUT_DIR is writable");
    let build = shared_with_worker(&own);
    println!("cargo::rustc-env=PSN_BUILD={build}");
    if is_full {
        worker(&build);
    }
}

/// Hash of what a psn and its worker must have in common: the engine that code is compiled for, and which components are psn's own.
fn shared_with_worker(own: &[String]) -> String {
    let read = |path: &str| {
        println!("cargo::rerun-if-changed={path}");
        fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"))
    };
    let mut hash = Sha256::new();
    for text in ENGINE.map(read).iter().chain(own) {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text);
    }
    let lock: toml::Table = read(LOCK_FILE).parse().unwrap_or_else(|e| panic!("{LOCK_FILE}: {e}"));
    let packages = lock["package"].as_array().expect("cargo writes a list");
    let wasmtime = packages.iter().find(|package| package["name"].as_str() == Some("wasmtime"));
    hash.update(wasmtime.and_then(|package| package["version"].as_str()).expect("psn depends on wasmtime"));
    hex::encode(hash.finalize())
}

/// `Some` of an embedded worker, or `None`.
fn worker(build: &str) {
    let out = Path::new(&var("OUT_DIR")).join("worker");
    let mut source = String::from("None\n");
    if let Some(file) = env::var_os("PSN_WORKER_FILE").filter(|file| !file.is_empty()) {
        let path = Path::new(&file);
        println!("cargo::rerun-if-changed={}", path.display());
        let bytes = fs::read(path).unwrap_or_else(|e| panic!("PSN_WORKER_FILE: {}: {e}", path.display()));
        // Its marker has it: src/worker.rs.
        assert!(
            bytes.windows(build.len()).any(|window| window == build.as_bytes()),
            "PSN_WORKER_FILE: {} is no psn-worker of this source, with these plugins (PSN_PLUGINS_DIR)",
            path.display()
        );
        // Compressed also so that psn's own bytes do not look like a worker's.
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        let deflated = encoder.write_all(&bytes).and_then(|()| encoder.finish()).expect("memory takes all bytes");
        fs::write(&out, deflated).expect("OUT_DIR is writable");
        source = format!(
            "Some(Embedded {{ deflated: include_bytes!({:?}), size: {}, sha256: {:?} }})\n",
            out.display().to_string(),
            bytes.len(),
            hex::encode(Sha256::digest(&bytes)),
        );
    }
    fs::write(out.with_extension("rs"), source).expect("OUT_DIR is writable");
}

fn built() -> Vec<PathBuf> {
    let go = || {
        let workspace = workspace_of(Path::new(&var("CARGO_MANIFEST_DIR")))?;
        let target = nested_target_dir(Path::new(&var("OUT_DIR")))?;
        let packages: Vec<&str> = FIRST_PARTY.iter().map(|(_, package)| *package).collect();
        let built = build(&workspace, &packages, &target)?;
        rerun_if_changed(&workspace, &built);
        Ok::<_, anyhow::Error>(built.into_iter().map(|b| b.component).collect())
    };
    go().unwrap_or_else(|e| panic!("{e:#}"))
}

fn prebuilt(dir: &Path) -> Vec<PathBuf> {
    FIRST_PARTY
        .iter()
        .map(|(name, _)| {
            let path = dir.join(format!("{name}.wasm"));
            assert!(path.is_file(), "PSN_PLUGINS_DIR: {} is not there", path.display());
            println!("cargo::rerun-if-changed={}", path.display());
            path
        })
        .collect()
}

fn var(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}
