//! `just build-plugins`: builds the first-party plugins and the examples, and leaves `plugins/dist/<name>.wasm`.
#![forbid(unsafe_code)]

use std::env;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use psn_plugin_build::{FIRST_PARTY, HOSTILE, build, workspace_of};

/// Third-party-like components that come with the project: name and package.
const EXAMPLES: &[(&str, &str)] = &[("publish-post", "psn-example-publish-post")];

#[expect(clippy::print_stdout, reason = "a command for people: a table of what was built")]
fn main() -> Result<()> {
    let workspace = workspace_of(Path::new(env!("CARGO_MANIFEST_DIR")))?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), Into::into).join("plugins");
    let wanted: Vec<_> = FIRST_PARTY.iter().chain(EXAMPLES).chain(HOSTILE).collect();
    let packages: Vec<&str> = wanted.iter().map(|(_, package)| *package).collect();
    let dist = workspace.join("plugins/dist");
    fs::create_dir_all(&dist).with_context(|| dist.display().to_string())?;
    for ((name, _), built) in wanted.iter().zip(build(&workspace, &packages, &target)?) {
        let to = dist.join(format!("{name}.wasm"));
        // Copied beside and renamed: a reader never sees half a component.
        let temporary = dist.join(format!(".{name}.wasm.tmp"));
        fs::copy(&built.component, &temporary).with_context(|| built.component.display().to_string())?;
        fs::rename(&temporary, &to)?;
        println!(
            "{:>8.1} KB  {}",
            fs::metadata(&to)?.len() as f64 / 1000.0,
            to.strip_prefix(&workspace).unwrap_or(&to).display()
        );
    }
    Ok(())
}
