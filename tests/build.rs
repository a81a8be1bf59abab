//! Builds the example plugin and the fixtures into components, and tells the tests where they are.
use std::path::Path;

use psn_plugin_build::{build, nested_target_dir, rerun_if_changed, workspace_of};

/// Package, and the variable that says where its component is.
const COMPONENTS: &[(&str, &str)] = &[
    ("psn-example-publish-post", "PSN_EXAMPLE_PUBLISH_POST"),
    ("psn-fixture-noop-task", "PSN_FIXTURE_NOOP_TASK"),
    ("psn-fixture-sleeper", "PSN_FIXTURE_SLEEPER"),
    ("psn-fixture-ungranted-import", "PSN_FIXTURE_UNGRANTED_IMPORT"),
    ("psn-fixture-ungranted-route", "PSN_FIXTURE_UNGRANTED_ROUTE"),
];

fn main() -> anyhow::Result<()> {
    let workspace = workspace_of(Path::new(&std::env::var("CARGO_MANIFEST_DIR")?))?;
    let target = nested_target_dir(Path::new(&std::env::var("OUT_DIR")?))?;
    let packages: Vec<&str> = COMPONENTS.iter().map(|(package, _)| *package).collect();
    let built = build(&workspace, &packages, &target)?;
    rerun_if_changed(&workspace, &built);
    for ((_, variable), component) in COMPONENTS.iter().zip(&built) {
        println!("cargo::rustc-env={variable}={}", component.component.display());
    }
    Ok(())
}
