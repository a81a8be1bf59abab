//! The guests as components: what a built plugin imports, exports and carries.

use std::{fs, path::Path};

use wasmparser::{ComponentExternalKind, Parser, Payload};

/// Package, its folder, and the interface it exports.
const GUESTS: [(&str, &str, &str); 6] = [
    ("psn-plugin-keys", "plugins/keys", "psn:plugin/lifecycle@0.1.0"),
    ("psn-plugin-neon-provision", "plugins/neon-provision", "psn:plugin/lifecycle@0.1.0"),
    ("psn-plugin-trigger-provision", "plugins/trigger-provision", "psn:plugin/lifecycle@0.1.0"),
    ("psn-plugin-validate", "plugins/validate", "psn:plugin/lifecycle@0.1.0"),
    ("psn-plugin-watchdog", "plugins/watchdog", "psn:plugin/runner@0.1.0"),
    ("psn-example-publish-post", "examples/publish-post", "psn:plugin/runner@0.1.0"),
];

/// Bytes, a fifth of them function names. A guest that grows past this has pulled in something it should not need.
const LARGEST_GUEST: u64 = 600_000;

#[test]
fn guests_import_only_the_contract_and_carry_their_manifest() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("sdk/ is in the workspace");
    let packages: Vec<_> = GUESTS.iter().map(|(package, ..)| *package).collect();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests");
    let built = psn_plugin_build::build(workspace, &packages, &target).expect("the guests build");
    for (guest, (package, folder, interface)) in built.iter().zip(GUESTS) {
        assert_eq!(guest.package, package);
        let bytes = fs::read(&guest.component).expect("the component");
        let component = read(&bytes);

        let foreign: Vec<_> = component.imports.iter().filter(|name| !name.starts_with("psn:plugin/")).collect();
        assert!(foreign.is_empty(), "{package} imports {foreign:?}");
        assert_eq!(component.exports, [interface], "{package}");

        let manifest = fs::read(workspace.join(folder).join("plugin.toml")).expect("plugin.toml");
        let embedded = component.manifests.concat();
        assert_eq!(String::from_utf8_lossy(&embedded), String::from_utf8_lossy(&manifest), "{package}");
        assert!(bytes.len() as u64 <= LARGEST_GUEST, "{package} has {} bytes", bytes.len());
    }
}

#[derive(Default)]
struct Component {
    imports: Vec<String>,
    exports: Vec<String>,
    /// Custom sections `psn:manifest`, of the component or of a module in it.
    manifests: Vec<Vec<u8>>,
}

fn read(bytes: &[u8]) -> Component {
    let mut component = Component::default();
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.expect("a well-formed component") {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CustomSection(section) if section.name() == "psn:manifest" => {
                component.manifests.push(section.data().to_vec());
            }
            Payload::ComponentImportSection(imports) if depth == 0 => {
                component
                    .imports
                    .extend(imports.into_iter().map(|import| import.expect("an import").name.name.to_owned()));
            }
            Payload::ComponentExportSection(exports) if depth == 0 => {
                let exports = exports.into_iter().map(|export| export.expect("an export"));
                let instances = exports.filter(|export| export.kind == ComponentExternalKind::Instance);
                component.exports.extend(instances.map(|export| export.name.name.to_owned()));
            }
            _ => {}
        }
    }
    component
}
