//! Builds the first-party plugins and pins them: the binary embeds each component with its digest and the hash of what its
//! manifest asks for. The runtime verifies both, as it does for third-party plugins from psn.lock.
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

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

fn main() {
    println!("cargo::rerun-if-env-changed=PSN_PLUGINS_DIR");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../migrations");
    let components = match env::var_os("PSN_PLUGINS_DIR") {
        Some(dir) => prebuilt(Path::new(&dir)),
        None => built(),
    };
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
        writeln!(
            table,
            "    FirstParty {{ name: {name:?}, component: include_bytes!({:?}), sha256: {:?}, capabilities_hash: {:?} }},",
            path.display().to_string(),
            hex::encode(Sha256::digest(&bytes)),
            manifest.capabilities_hash(),
        )
        .expect("writing to a string");
    }
    table.push_str("]\n");
    fs::write(Path::new(&var("OUT_DIR")).join("first_party.rs"), table).expect("OUT_DIR is writable");
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
