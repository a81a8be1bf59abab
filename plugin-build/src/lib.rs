//! Builds guest crates into components with a cargo of its own.
//!
//! The nested cargo gets a target folder apart from the outer one (the same one would deadlock), shared by all outer profiles,
//! and an environment without what the outer cargo set for its own crate.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// What guests are built for: no operating system, so a component imports nothing but the plugin contract.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// The cargo profile of guests, in the workspace's Cargo.toml.
const PROFILE: &str = "guest";

/// psn's own plugins: name (as in plugin.toml) and package.
pub const FIRST_PARTY: &[(&str, &str)] = &[
    ("keys", "psn-plugin-keys"),
    ("neon-provision", "psn-plugin-neon-provision"),
    ("neon-provision-cli", "psn-plugin-neon-provision-cli"),
    ("trigger-provision", "psn-plugin-trigger-provision"),
    ("validate", "psn-plugin-validate"),
    ("watchdog", "psn-plugin-watchdog"),
];

/// The guests of the hostile suite, which psn embeds for `psn doctor --hostile`: file name and package.
pub const HOSTILE: &[(&str, &str)] = &[
    ("hostile-net", "psn-hostile-net"),
    ("hostile-data", "psn-hostile-data"),
    ("hostile-local", "psn-hostile-local"),
    ("hostile-mixed", "psn-hostile-mixed"),
    ("hostile-step", "psn-hostile-step"),
];

/// A component that was built.
#[derive(Debug, Clone)]
pub struct Built {
    pub package: String,
    pub component: PathBuf,
    /// The files it was built from, for `cargo::rerun-if-changed`.
    pub sources: BTreeSet<PathBuf>,
}

/// Builds the packages of the workspace at `workspace`, into `target_dir`.
pub fn build(workspace: &Path, packages: &[&str], target_dir: &Path) -> Result<Vec<Built>> {
    ensure_target()?;
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(workspace)
        .args(["build", "--locked", "--profile", PROFILE, "--target", TARGET, "--target-dir"])
        .arg(target_dir);
    for package in packages {
        cargo.args(["--package", package]);
    }
    for (name, _) in env::vars_os() {
        if belongs_to_outer_build(&name) {
            cargo.env_remove(name);
        }
    }
    // A build script's standard output is a protocol; the nested cargo's words go to standard error.
    let status = cargo
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("cargo could not be started to build the plugins")?;
    ensure!(status.success(), "building the plugins for {TARGET} failed ({status}); the compiler's words are above");

    let out = target_dir.join(TARGET).join(PROFILE);
    packages
        .iter()
        .map(|package| {
            let component = out.join(format!("{}.wasm", package.replace('-', "_")));
            ensure!(
                component.is_file(),
                "cargo built {package}, but {} is not there: is its crate-type cdylib?",
                component.display()
            );
            let sources = sources(&component.with_extension("d"))?;
            Ok(Built { package: (*package).to_owned(), component, sources })
        })
        .collect()
}

/// Where a build script of this workspace puts guests: beside the outer target folder's profiles, whatever the profile.
pub fn nested_target_dir(out_dir: &Path) -> Result<PathBuf> {
    // OUT_DIR is <target>/<profile>/build/<package>-<hash>/out, or has the target triple in front of the profile.
    out_dir
        .ancestors()
        .find(|dir| dir.join("CACHEDIR.TAG").is_file() || dir.join(".rustc_info.json").is_file())
        .map(|target| target.join("plugins"))
        .with_context(|| format!("{} is not inside a cargo target folder", out_dir.display()))
}

/// The workspace that a build script's crate belongs to.
pub fn workspace_of(manifest_dir: &Path) -> Result<PathBuf> {
    manifest_dir
        .ancestors()
        .find(|dir| dir.join("Cargo.lock").is_file())
        .map(Path::to_path_buf)
        .with_context(|| format!("no Cargo.lock above {}", manifest_dir.display()))
}

/// Tells cargo what a build script that called [`build`] depends on.
#[expect(clippy::print_stdout, reason = "that is how a build script talks to cargo")]
pub fn rerun_if_changed(workspace: &Path, built: &[Built]) {
    for file in ["Cargo.lock", "Cargo.toml", "wit"] {
        println!("cargo::rerun-if-changed={}", workspace.join(file).display());
    }
    let sources: BTreeSet<&PathBuf> = built.iter().flat_map(|b| &b.sources).collect();
    for source in sources {
        println!("cargo::rerun-if-changed={}", source.display());
    }
}

/// Adds the target through rustup where it is missing: rust-toolchain.toml alone does so only where rustup's auto-install is on.
fn ensure_target() -> Result<()> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(&rustc).args(["--print", "sysroot"]).output().context("rustc could not be started")?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    if sysroot.join("lib/rustlib").join(TARGET).join("lib").is_dir() {
        return Ok(());
    }
    // The toolchain by name: the nested rustup must not choose another one than the outer build runs with.
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", TARGET]);
    if let Some(toolchain) = sysroot.file_name() {
        rustup.arg("--toolchain").arg(toolchain);
    }
    match rustup.stdin(Stdio::null()).stdout(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        _ => bail!(
            "this Rust has no standard library for {TARGET}, which the plugins are built for, and rustup could not add it.\n  \
             With rustup:    rustup target add {TARGET}\n  \
             With a distribution's Rust: install its package for that target (Debian: libstd-rust-dev-wasm32)\n  \
             With prebuilt plugins: PSN_PLUGINS_DIR=/path/to/plugins/dist"
        ),
    }
}

fn belongs_to_outer_build(name: &OsStr) -> bool {
    const KEPT: [&str; 3] = ["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_TERM_COLOR"];
    const DROPPED: [&str; 13] = [
        "RUSTFLAGS",
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTDOC",
        "RUSTDOCFLAGS",
        "TARGET",
        "HOST",
        "PROFILE",
        "OPT_LEVEL",
        "DEBUG",
        "NUM_JOBS",
        "OUT_DIR",
    ];
    let name = name.to_string_lossy();
    (name.starts_with("CARGO_") && !KEPT.contains(&&*name)) || DROPPED.contains(&&*name)
}

/// The files that cargo's dep-info names, in makefile syntax: `target: file file\ with\ blank …`
fn sources(dep_info: &Path) -> Result<BTreeSet<PathBuf>> {
    let text = fs::read_to_string(dep_info).with_context(|| dep_info.display().to_string())?;
    let files = text.split_once(": ").map_or("", |(_, files)| files);
    Ok(files.replace("\\ ", "\u{1}").split_whitespace().map(|f| PathBuf::from(f.replace('\u{1}', " "))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outer_builds_settings_are_dropped_and_the_users_kept() {
        for name in ["CARGO_TARGET_DIR", "CARGO_PKG_NAME", "CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "OUT_DIR"] {
            assert!(belongs_to_outer_build(OsStr::new(name)), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_NET_OFFLINE", "PATH", "HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"] {
            assert!(!belongs_to_outer_build(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn dep_info_with_blanks() {
        let dir = env::temp_dir().join(format!("psn-plugin-build-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("x.d"), "/t/x.wasm: /a/b.rs /c\\ d/e.rs\n").unwrap();
        assert_eq!(sources(&dir.join("x.d")).unwrap(), BTreeSet::from(["/a/b.rs".into(), "/c d/e.rs".into()]));
        fs::remove_dir_all(dir).unwrap();
    }
}
