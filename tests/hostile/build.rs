//! Builds the suite: the guests, the components that are given as text, and one table of attacks and expectations. An attack
//! without an expectation, or an expectation without an attack, fails the build.
#[path = "build/fixtures.rs"]
mod fixtures;
#[path = "build/raw.rs"]
mod raw;
#[path = "build/wat.rs"]
mod wat_guest;

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use psn_plugin_build::{HOSTILE, build, nested_target_dir, rerun_if_changed, workspace_of};

use fixtures::{Attack, Expectation, Kind};

fn main() -> Result<()> {
    let here = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    for watched in ["build.rs", "build", "attacks", "expectations.toml", "../../wit"] {
        println!("cargo::rerun-if-changed={watched}");
    }
    println!("cargo::rerun-if-env-changed=PSN_PLUGINS_DIR");
    let groups = fixtures::read(&here.join("attacks"))?;
    let expectations = fixtures::expectations(&here.join("expectations.toml"))?;
    same_ids(&groups, &expectations)?;

    let mut table = String::new();
    for (name, component) in guests(&here, &out)? {
        let file = deflated(&out, &format!("guest-{name}"), &fs::read(&component)?)?;
        writeln!(table, "pub(crate) const {}: &[u8] = include_bytes!({file:?});", name.to_uppercase())?;
    }
    writeln!(table, "pub(crate) static ATTACKS: &[Attack] = &[")?;
    for (group, attacks) in &groups {
        for attack in attacks {
            let expected = expectations.iter().find(|e| e.id == attack.id).context("checked before")?;
            row(&mut table, &here, &out, group, attack, expected).with_context(|| attack.id.clone())?;
        }
    }
    writeln!(table, "];")?;
    fs::write(out.join("suite.rs"), table)?;
    Ok(())
}

fn same_ids(groups: &[(String, Vec<Attack>)], expectations: &[Expectation]) -> Result<()> {
    let mut attacks = BTreeSet::new();
    for attack in groups.iter().flat_map(|(_, attacks)| attacks) {
        ensure!(attacks.insert(&attack.id), "two attacks are called {}", attack.id);
    }
    let mut expected = BTreeSet::new();
    for expectation in expectations {
        ensure!(expected.insert(&expectation.id), "two expectations are for {}", expectation.id);
    }
    let without: Vec<_> = attacks.difference(&expected).collect();
    ensure!(without.is_empty(), "attacks without an expectation in expectations.toml: {without:?}");
    let without: Vec<_> = expected.difference(&attacks).collect();
    ensure!(without.is_empty(), "expectations without an attack in attacks/: {without:?}");
    Ok(())
}

/// The guests as components: built here, or lying in PSN_PLUGINS_DIR.
fn guests(here: &Path, out: &Path) -> Result<Vec<(&'static str, PathBuf)>> {
    if let Some(dir) = env::var_os("PSN_PLUGINS_DIR") {
        return HOSTILE
            .iter()
            .map(|(name, _)| {
                let path = Path::new(&dir).join(format!("{name}.wasm"));
                ensure!(path.is_file(), "PSN_PLUGINS_DIR: {} is not there", path.display());
                println!("cargo::rerun-if-changed={}", path.display());
                Ok((name.trim_start_matches("hostile-"), path))
            })
            .collect();
    }
    let workspace = workspace_of(here)?;
    let packages: Vec<&str> = HOSTILE.iter().map(|(_, package)| *package).collect();
    let built = build(&workspace, &packages, &nested_target_dir(out)?)?;
    rerun_if_changed(&workspace, &built);
    Ok(HOSTILE.iter().zip(built).map(|((name, _), b)| (name.trim_start_matches("hostile-"), b.component)).collect())
}

fn row(
    table: &mut String,
    here: &Path,
    out: &Path,
    group: &str,
    attack: &Attack,
    expected: &Expectation,
) -> Result<()> {
    let made = match attack.kind()? {
        Kind::Guest(guest) => {
            ensure!(
                HOSTILE.iter().any(|(name, _)| name.trim_start_matches("hostile-") == guest),
                "there is no guest {guest}"
            );
            let script = attack.script();
            let file = out.join(format!("{}.script", attack.id));
            fs::write(&file, &script)?;
            format!("Made::Scripted {{ guest: {}, script: include_bytes!({file:?}) }}", guest.to_uppercase())
        }
        Kind::Wat => {
            let bytes = wat_guest::component(attack, &here.join("../../wit"))?;
            format!("Made::Whole(include_bytes!({:?}))", deflated(out, &attack.id, &bytes)?)
        }
        Kind::Raw(name) => {
            let bytes = raw::bytes(name, &attack.manifest(), &here.join("../../wit"))?;
            format!("Made::Whole(include_bytes!({:?}))", deflated(out, &attack.id, &bytes)?)
        }
    };
    let unknown: Vec<_> = expected.effects.iter().filter(|e| !fixtures::EFFECTS.contains(&e.as_str())).collect();
    if !unknown.is_empty() {
        bail!("no such effects: {unknown:?}");
    }
    writeln!(
        table,
        "    Attack {{ id: {:?}, group: {group:?}, name: {:?}, title: {:?}, threat: {:?}, others: {:?}, made: {made}, manifests: &{:?}, \
         expected: Expected {{ added: {:?}, migrated: {:?}, code: {:?}, told: &{:?}, web: &{:?}, unseen: &{:?}, effects: &{:?}, within_ms: {}, deadline: {}, tamper: {:?} }} }},",
        attack.id,
        attack.name(),
        expected.title,
        expected.threat,
        expected.others,
        attack.manifests(),
        expected.added,
        expected.migrated,
        expected.code,
        expected.told,
        expected.web,
        expected.unseen,
        expected.effects,
        expected.within_ms,
        expected.within_ms != fixtures::WITHIN_MS,
        expected.tamper,
    )?;
    Ok(())
}

/// Writes the bytes compressed; answers the file's path.
fn deflated(out: &Path, name: &str, bytes: &[u8]) -> Result<String> {
    let file = out.join(format!("{name}.deflate"));
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes)?;
    fs::write(&file, encoder.finish()?)?;
    Ok(file.display().to_string())
}
