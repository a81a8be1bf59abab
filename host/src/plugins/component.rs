//! Reads a component's bytes before anything is compiled: whether it is one, what it brings along, what it imports, and whether
//! its manifest asks for all of that.
use sha2::{Digest, Sha256};
use wasmparser::{Validator, WasmFeatures};

use super::manifest::{Manifest, ManifestError, SECTION, World};
use super::scan::{Scan, scan};
use crate::error::{CodedError, coded_by_value};

/// The longest component that is read, in bytes. A Python guest is about 18 MiB, the largest there is today.
pub const MAX_COMPONENT_BYTES: usize = 32 << 20;

/// The most functions in one component. Compiling takes about 0.15 ms each: 60,000 took 9 s on two cores. An interpreter compiled
/// to a component has about 25,000.
pub const MAX_FUNCTIONS: u32 = 50_000;

/// The longest function body, in bytes. Compile time grows faster than a body does and is not spread over threads: one of 2.4 MB
/// took 7 to 12 s. The main loop of an interpreter is about 200 KiB.
pub const MAX_BODY_BYTES: usize = 512 << 10;

/// The most instantiations of core modules that are written down in one component. A shared-library guest has about 30.
pub const MAX_CORE_INSTANTIATIONS: u32 = 128;

/// How deep modules and components may lie in each other. wit-component nests twice.
pub const MAX_NESTING: u32 = 8;

/// The most types of one component, all levels together. The contract with WASI has about 1,500.
pub const MAX_TYPES: u32 = 20_000;

/// The most imports, and the most exports, of one component, its modules included. An interpreter has some hundred.
pub const MAX_IMPORTS: u32 = 5_000;

/// Bytes of custom sections, all together: names of functions, and what tools left. A debug build's DWARF is not for production.
pub const MAX_CUSTOM_BYTES: u64 = 16 << 20;

/// The most data segments, and the most element segments, of one component. Each is looked at in each instantiation.
pub const MAX_SEGMENTS: u32 = 20_000;

/// The most globals of one component. A shared-library guest has some hundred.
pub const MAX_GLOBALS: u32 = 20_000;

/// The most instantiations of nested components. Each may itself instantiate others twice, so that compilation can grow
/// exponentially with their number; a component of one of our worlds needs one.
pub const MAX_COMPONENT_INSTANTIATIONS: u32 = 16;

/// Bytes that all memories of one component begin with, together, as its modules declare them. What a call may use is limited apart;
/// this is what compilation may prepare an image of.
pub const MAX_INITIAL_MEMORY: u64 = 1 << 30;

/// A page of linear memory, in bytes.
pub(super) const PAGE_BYTES: u64 = 64 << 10;

/// The package of the contract, as imports name it.
const PACKAGE: &str = "psn:plugin/";

/// The version of the contract that this psn speaks.
pub const CONTRACT_VERSION: &str = "0.1.0";

/// Interfaces of the contract that need no grant; `types` has no functions.
const FREE: [&str; 4] = ["types", "state", "context", "events"];

/// What components may use of WebAssembly: what the compilers of Rust, C, JavaScript and Python emit by default. Threads, 64-bit
/// and multiple memories, exceptions, garbage collection and component-model-async are off: what is not there can't be attacked.
pub const FEATURES: WasmFeatures = WasmFeatures::WASM2
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::COMPONENT_MODEL)
    .difference(WasmFeatures::GC_TYPES);

/// What a component's bytes say about it.
#[derive(Clone, Debug)]
pub struct Described {
    /// Hex SHA-256 of the bytes.
    pub sha256: String,
    pub manifest: Manifest,
    /// Names of imports, in the component's order.
    pub imports: Vec<String>,
    pub exports: Vec<String>,
    /// Whether it imports anything of WASI: then it is given an empty one.
    pub wasi: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ComponentError {
    #[error("the component is {size} bytes long; at most {MAX_COMPONENT_BYTES} are read")]
    TooLarge { size: usize },
    #[error("this is {what}, not a WebAssembly component")]
    NotAComponent { what: &'static str },
    #[error("the component is not valid at byte {offset}: {message}")]
    Invalid { offset: usize, message: String },
    /// A limit on what compilation may cost.
    #[error("the component has {found} {what}; at most {limit} are compiled")]
    TooCostly { what: &'static str, found: u64, limit: u64 },
    #[error("the component has {0} manifests (custom sections `{SECTION}`); it must have exactly one")]
    ManyManifests(usize),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("the component imports {import}, which is not part of the contract")]
    UnknownImport { import: String },
    /// An import or export of another version of the contract.
    #[error("the component has {name}; this psn speaks {PACKAGE}*@{CONTRACT_VERSION}")]
    OtherVersion { name: String },
    #[error("the component imports {import}, but its manifest asks for nothing of it")]
    NotGranted { import: String, line: &'static str },
    #[error("the manifest says world {world}, but the component does not export {export}")]
    WorldNotExported { world: String, export: String },
}

coded_by_value!(ComponentError);

impl From<&ComponentError> for CodedError {
    fn from(e: &ComponentError) -> Self {
        use ComponentError as E;
        let message = e.to_string();
        match e {
            E::TooLarge { .. } | E::TooCostly { .. } => CodedError::new(
                "plugin.too-large",
                message,
                ["Build it for size (opt-level \"s\", lto, panic \"abort\"), or split it into several plugins."],
            ),
            E::NotAComponent { .. } => CodedError::new(
                "plugin.not-a-component",
                message,
                [
                    "Build it as a component: target wasm32-unknown-unknown with the linker wasm-component-ld, as docs/plugins.md shows.",
                ],
            ),
            E::Invalid { .. } => CodedError::new(
                "plugin.component-invalid",
                message,
                [
                    "Build the component again. If it came from elsewhere, get it again and compare its sha256 with the publisher's.",
                ],
            ),
            E::ManyManifests(_) | E::Manifest(ManifestError::Missing) => CodedError::new(
                "plugin.manifest-missing",
                message,
                [
                    "Embed plugin.toml once: the SDK's export macro does so, or add it as the custom section `psn:manifest`.",
                ],
            ),
            E::Manifest(ManifestError::OtherWorld { world }) => other_version(world, message),
            E::Manifest(_) => CodedError::new(
                "plugin.manifest-invalid",
                message,
                ["Correct plugin.toml, then build the component again."],
            ),
            E::UnknownImport { import } => CodedError::new(
                "plugin.import-unknown",
                message,
                [format!(
                    "Remove what needs {import}: a plugin can import the interfaces of the package psn:plugin only (wit/ in psn's repository)."
                )],
            ),
            E::OtherVersion { name } => other_version(name, message),
            E::NotGranted { line, .. } => {
                CodedError::new("plugin.import-not-granted", message, [format!("Add to plugin.toml: {line}")])
            }
            E::WorldNotExported { export, .. } => CodedError::new(
                "plugin.world-not-exported",
                message,
                [format!("Export {export}, or correct `world` in plugin.toml.")],
            ),
        }
    }
}

/// Which psn it takes: the plugin's contract and psn's may differ either way.
fn other_version(name: &str, message: String) -> CodedError {
    let version = name.rsplit_once('@').map_or(name, |(_, version)| version);
    let numbers = |v: &str| v.split('.').map(|n| n.parse::<u64>().ok()).collect::<Option<Vec<_>>>();
    let this = env!("CARGO_PKG_VERSION");
    let fix = match (numbers(version), numbers(CONTRACT_VERSION)) {
        (Some(needs), Some(speaks)) if needs < speaks => format!(
            "Build the plugin again against {PACKAGE}*@{CONTRACT_VERSION}, which psn {this} speaks: it is made for an earlier psn, of {PACKAGE}*@{version}."
        ),
        _ => format!(
            "Install a psn that speaks {PACKAGE}*@{version}; this is psn {this}, which speaks {PACKAGE}*@{CONTRACT_VERSION}. Or get the plugin built for that."
        ),
    };
    CodedError::new("plugin.contract-version", message, [fix])
}

/// Everything that can be said about a component without compiling it; an error where it must not run.
pub fn describe(bytes: &[u8]) -> Result<Described, ComponentError> {
    let Scan { manifests, imports, exports } = scan(bytes)?;
    let manifest = match manifests.as_slice() {
        [one] => Manifest::parse(one)?,
        [] => return Err(ManifestError::Missing.into()),
        many => return Err(ComponentError::ManyManifests(many.len())),
    };
    Validator::new_with_features(FEATURES).validate_all(bytes).map_err(invalid)?;
    check_world(&manifest, &exports)?;
    for import in &imports {
        check_import(&manifest, import)?;
    }
    let wasi = imports.iter().any(|i| is_wasi(i));
    Ok(Described { sha256: hex::encode(Sha256::digest(bytes)), manifest, imports, exports, wasi })
}

pub(super) fn invalid(e: wasmparser::BinaryReaderError) -> ComponentError {
    ComponentError::Invalid { offset: e.offset(), message: e.message().to_owned() }
}

/// The interface that a component of this world exports.
pub fn world_export(world: World) -> String {
    let interface = match world {
        World::Step => "lifecycle",
        World::Task => "runner",
    };
    format!("{PACKAGE}{interface}@{CONTRACT_VERSION}")
}

fn check_world(manifest: &Manifest, exports: &[String]) -> Result<(), ComponentError> {
    let export = world_export(manifest.world());
    if exports.contains(&export) {
        return Ok(());
    }
    let unversioned = export.split_once('@').map_or(export.as_str(), |(interface, _)| interface);
    if let Some(other) = exports.iter().find(|e| e.split_once('@').is_some_and(|(i, _)| i == unversioned)) {
        return Err(ComponentError::OtherVersion { name: other.clone() });
    }
    Err(ComponentError::WorldNotExported { world: manifest.plugin.world.clone(), export })
}

fn is_wasi(import: &str) -> bool {
    import.starts_with("wasi:")
}

/// Whether the component may import this: a known interface of which the manifest asks for something.
fn check_import(manifest: &Manifest, import: &str) -> Result<(), ComponentError> {
    if is_wasi(import) {
        return Ok(());
    }
    let unknown = || ComponentError::UnknownImport { import: import.to_owned() };
    let (interface, version) = import.strip_prefix(PACKAGE).and_then(|i| i.split_once('@')).ok_or_else(unknown)?;
    let (asked, line) = match interface {
        _ if FREE.contains(&interface) => (true, ""),
        "http" => {
            (!manifest.http.is_empty(), "[[http]] service = \"name\", base = \"https://…\", routes = [\"GET /path\"]")
        }
        "db" => (!manifest.db.is_empty(), "[db] \"table\" = { select = [\"column\"] }"),
        "tool" => (!manifest.tool.is_empty(), "[[tool]] name = \"program\", args = [[\"argument\"]]"),
        "vault" => (!manifest.vault.contexts.is_empty(), "[vault] contexts = [\"name:*\"]"),
        "hub" => (!manifest.hub.facts.is_empty(), "[hub] facts = [\"topic\"]"),
        "secrets" => (names_a_secret(manifest), "[secrets] names = [\"NAME\"]"),
        _ => return Err(unknown()),
    };
    if version != CONTRACT_VERSION {
        return Err(ComponentError::OtherVersion { name: import.to_owned() });
    }
    if !asked {
        return Err(ComponentError::NotGranted { import: import.to_owned(), line });
    }
    Ok(())
}

/// Names under [secrets], and those that a service's credentials, captures and bodies speak of.
fn names_a_secret(manifest: &Manifest) -> bool {
    !manifest.secrets.names.is_empty()
        || !manifest.secrets.generate.is_empty()
        || manifest.http.iter().any(|s| s.auth.is_some() || !s.capture.is_empty() || !s.inject.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: &str =
        "[plugin]\nname = \"x\"\nversion = \"0.1.0\"\nworld = \"psn:plugin/step@0.1.0\"\nsummary = \"s\"\n";

    /// A component that imports and exports empty interfaces of these names: enough for whatever is decided before compilation.
    fn component(manifests: &[&str], imports: &[&str], exports: &[&str], more: &str) -> Vec<u8> {
        let mut text = String::from("(component ");
        for import in imports {
            text += &format!("(import {import:?} (instance)) ");
        }
        text += "(instance $e) ";
        for export in exports {
            text += &format!("(export {export:?} (instance $e)) ");
        }
        for manifest in manifests {
            text += &format!("(@custom \"psn:manifest\" {manifest:?}) ");
        }
        wat::parse_str(format!("{text}{more})")).unwrap()
    }

    fn step(imports: &[&str], asks: &str) -> Vec<u8> {
        component(&[&format!("{ABOUT}{asks}")], imports, &["psn:plugin/lifecycle@0.1.0"], "")
    }

    fn code(e: &ComponentError) -> String {
        CodedError::from(e).code
    }

    #[test]
    fn describes_a_component() {
        let bytes = step(
            &["psn:plugin/events@0.1.0", "psn:plugin/http@0.1.0", "wasi:io/poll@0.2.6"],
            "[[http]]\nservice = \"neon\"\nbase = \"https://x\"\nroutes = []\n",
        );
        let d = describe(&bytes).unwrap();
        assert_eq!(d.manifest.plugin.name, "x");
        assert_eq!(d.imports, ["psn:plugin/events@0.1.0", "psn:plugin/http@0.1.0", "wasi:io/poll@0.2.6"]);
        assert_eq!(d.exports, ["psn:plugin/lifecycle@0.1.0"]);
        assert!(d.wasi);
        assert_eq!(d.sha256, hex::encode(Sha256::digest(&bytes)));
    }

    #[test]
    fn an_import_needs_a_line_in_the_manifest() {
        for (interface, asks) in [
            ("http", "[[http]]\nservice = \"neon\"\nbase = \"https://x\"\nroutes = []\n"),
            ("db", "[db]\n\"posts\" = { select = [\"id\"] }\n"),
            ("tool", "[[tool]]\nname = \"trigger\"\nargs = []\n"),
            ("vault", "[vault]\ncontexts = [\"oauth:*\"]\n"),
            ("hub", "[hub]\nfacts = [\"git\"]\n"),
            ("secrets", "[secrets]\nnames = [\"A\"]\n"),
            ("secrets", "[secrets]\ngenerate = [\"A\"]\n"),
            ("secrets", "[[http]]\nservice = \"neon\"\nbase = \"https://x\"\nroutes = []\nauth = { bearer = \"A\" }\n"),
        ] {
            let import = format!("psn:plugin/{interface}@0.1.0");
            let refused = describe(&step(&[&import], "")).unwrap_err();
            assert_eq!(code(&refused), "plugin.import-not-granted");
            assert!(
                CodedError::from(&refused).fix[0].contains(&format!("[{interface}]")),
                "{interface}: {:?}",
                CodedError::from(&refused).fix
            );
            describe(&step(&[&import], asks)).unwrap_or_else(|e| panic!("{interface} with {asks}: {e}"));
        }
        for free in FREE {
            describe(&step(&[&format!("psn:plugin/{free}@0.1.0")], "")).unwrap();
        }
    }

    #[test]
    fn what_is_not_in_the_contract_is_refused() {
        for (import, expected) in [
            ("psn:plugin/shell@0.1.0", "plugin.import-unknown"),
            ("psn:plugin/events@0.2.0", "plugin.contract-version"),
            ("other:package/http@0.1.0", "plugin.import-unknown"),
            ("run-anything", "plugin.import-unknown"),
        ] {
            assert_eq!(code(&describe(&step(&[import], "")).unwrap_err()), expected, "{import}");
        }
        for version in ["0.0.9", "0.2.0"] {
            let world = ABOUT.replace("0.1.0\"\nsummary", &format!("{version}\"\nfrom-the-future = true\nsummary"));
            let other = [
                component(&[&world], &[], &["psn:plugin/lifecycle@0.1.0"], ""),
                component(&[ABOUT], &[], &[&format!("psn:plugin/lifecycle@{version}")], ""),
            ];
            for bytes in other {
                let refused = CodedError::from(describe(&bytes).unwrap_err());
                assert_eq!(refused.code, "plugin.contract-version", "{refused}");
                assert!(refused.message.contains(version) && refused.message.contains(CONTRACT_VERSION), "{refused}");
                let update = version == "0.2.0";
                assert_eq!(refused.fix[0].starts_with("Install a psn"), update, "{:?}", refused.fix);
            }
        }
        let no_export = component(&[ABOUT], &[], &["psn:plugin/runner@0.1.0"], "");
        assert_eq!(code(&describe(&no_export).unwrap_err()), "plugin.world-not-exported");
    }

    #[test]
    fn exactly_one_manifest_wherever_it_lies() {
        let export = ["psn:plugin/lifecycle@0.1.0"];
        assert_eq!(code(&describe(&component(&[], &[], &export, "")).unwrap_err()), "plugin.manifest-missing");
        assert!(matches!(
            describe(&component(&[ABOUT, ABOUT], &[], &export, "")),
            Err(ComponentError::ManyManifests(2))
        ));
        let nested = format!("(core module (@custom \"psn:manifest\" {ABOUT:?}))");
        assert_eq!(describe(&component(&[], &[], &export, &nested)).unwrap().manifest.plugin.name, "x");
        assert!(matches!(describe(&component(&[ABOUT], &[], &export, &nested)), Err(ComponentError::ManyManifests(2))));
    }

    #[test]
    fn what_is_no_component_is_called_by_its_name() {
        assert!(matches!(describe(b"hello"), Err(ComponentError::NotAComponent { .. })));
        assert!(matches!(
            describe(&wat::parse_str("(module)").unwrap()),
            Err(ComponentError::NotAComponent { what: "a core WebAssembly module" })
        ));
        assert!(matches!(describe(&vec![0; MAX_COMPONENT_BYTES + 1]), Err(ComponentError::TooLarge { .. })));
        let mut bytes = step(&[], "");
        let middle = bytes.len() / 2;
        bytes.truncate(middle);
        assert!(matches!(describe(&bytes), Err(ComponentError::Invalid { offset, .. }) if offset > 0));
    }

    #[test]
    fn features_that_are_off_are_refused_with_their_offset() {
        for module in ["(memory i64 1)", "(memory 1) (memory 1)", "(func return_call 0)", "(table 1 externref)"] {
            let bytes = component(&[ABOUT], &[], &["psn:plugin/lifecycle@0.1.0"], &format!("(core module {module})"));
            assert!(matches!(describe(&bytes), Err(ComponentError::Invalid { offset, .. }) if offset > 0), "{module}");
        }
    }

    #[test]
    fn compile_bombs_are_refused_before_they_are_compiled() {
        let export = ["psn:plugin/lifecycle@0.1.0"];
        let bomb = |more: &str| describe(&component(&[ABOUT], &[], &export, more));
        let functions = format!("(core module {})", "(func)".repeat(MAX_FUNCTIONS as usize + 1));
        assert!(matches!(bomb(&functions), Err(ComponentError::TooCostly { what: "functions", .. })));
        let body = format!("(core module (func {}))", "nop ".repeat(MAX_BODY_BYTES));
        assert!(matches!(bomb(&body), Err(ComponentError::TooCostly { what: "bytes in one function", .. })));
        let core = format!(
            "(core module $m) {}",
            "(core instance (instantiate $m))".repeat(MAX_CORE_INSTANTIATIONS as usize + 1)
        );
        assert!(matches!(bomb(&core), Err(ComponentError::TooCostly { what: "instantiations of core modules", .. })));
        let nested = format!("{}{}", "(component ".repeat(MAX_NESTING as usize), ")".repeat(MAX_NESTING as usize));
        describe(&component(&[ABOUT], &[], &export, &nested)).unwrap();
        let too_deep = format!("(component {nested})");
        let types = |n: u32| format!("(core module {})", "(type (func))".repeat(n as usize));
        let exports = "(func $f)".to_owned()
            + &(0..=MAX_IMPORTS).map(|i| format!("(export \"{i}\" (func $f))")).collect::<String>();
        let imports = (0..=MAX_IMPORTS).map(|i| format!("(import \"a\" \"{i}\" (func))")).collect::<String>();
        let custom = format!("(@custom \"x\" \"{}\")", "a".repeat(MAX_CUSTOM_BYTES as usize));
        let data = format!("(core module (memory 1) {})", "(data \"\")".repeat(MAX_SEGMENTS as usize + 1));
        let elements = format!("(core module (table 1 funcref) {})", "(elem func)".repeat(MAX_SEGMENTS as usize + 1));
        let globals = format!("(core module {})", "(global i32 (i32.const 0))".repeat(MAX_GLOBALS as usize + 1));
        let memory = "(core module (memory 16385))".to_owned();
        for (more, what) in [
            (too_deep, "levels of nesting"),
            (types(MAX_TYPES + 1), "types"),
            (format!("(core module {exports})"), "exports"),
            (format!("(core module {imports})"), "imports"),
            (custom, "bytes of custom sections"),
            (data, "data segments"),
            (elements, "element segments"),
            (globals, "globals"),
            (memory, "bytes of initial memory"),
        ] {
            let refused = bomb(&more).unwrap_err();
            assert!(matches!(refused, ComponentError::TooCostly { what: w, .. } if w == what), "{what}: {refused}");
        }
        // Each component instantiates the one before twice: 2^20 instances from a few hundred bytes.
        let mut doubling = String::from("(component $c0)");
        for i in 1..=20 {
            let before = i - 1;
            doubling += &format!(
                "(component $c{i} (alias outer 1 $c{before} (component $b)) (instance (instantiate $b)) (instance (instantiate $b)))"
            );
        }
        assert!(matches!(bomb(&doubling), Err(ComponentError::TooCostly { what: "instantiations of components", .. })));
    }
}
