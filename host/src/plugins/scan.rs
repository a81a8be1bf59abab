//! Walks a component's sections: what it is made of, and whether it is too costly to compile.
use wasmparser::{ComponentInstance, Encoding, Instance, Parser, Payload};

use super::component::{
    ComponentError, MAX_BODY_BYTES, MAX_COMPONENT_BYTES, MAX_COMPONENT_INSTANTIATIONS, MAX_CORE_INSTANTIATIONS,
    MAX_CUSTOM_BYTES, MAX_FUNCTIONS, MAX_GLOBALS, MAX_IMPORTS, MAX_INITIAL_MEMORY, MAX_NESTING, MAX_SEGMENTS,
    MAX_TYPES, PAGE_BYTES, invalid,
};
use super::manifest::SECTION;

pub(super) struct Scan<'a> {
    pub(super) manifests: Vec<&'a [u8]>,
    pub(super) imports: Vec<String>,
    pub(super) exports: Vec<String>,
}

/// Walks the sections once: cheap, and before validation, so that what is too large to compile is not validated either.
pub(super) fn scan(bytes: &[u8]) -> Result<Scan<'_>, ComponentError> {
    if bytes.len() > MAX_COMPONENT_BYTES {
        return Err(ComponentError::TooLarge { size: bytes.len() });
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(ComponentError::NotAComponent { what: "no WebAssembly at all" });
    }
    let mut found = Scan { manifests: Vec::new(), imports: Vec::new(), exports: Vec::new() };
    let mut functions = Counter::new("functions", MAX_FUNCTIONS.into());
    let mut core_instances = Counter::new("instantiations of core modules", MAX_CORE_INSTANTIATIONS.into());
    let mut instances = Counter::new("instantiations of components", MAX_COMPONENT_INSTANTIATIONS.into());
    let mut types = Counter::new("types", MAX_TYPES.into());
    let mut imported = Counter::new("imports", MAX_IMPORTS.into());
    let mut exported = Counter::new("exports", MAX_IMPORTS.into());
    let mut data = Counter::new("data segments", MAX_SEGMENTS.into());
    let mut elements = Counter::new("element segments", MAX_SEGMENTS.into());
    let mut globals = Counter::new("globals", MAX_GLOBALS.into());
    let mut custom = Counter::new("bytes of custom sections", MAX_CUSTOM_BYTES);
    let mut memory = Counter::new("bytes of initial memory", MAX_INITIAL_MEMORY);
    // What lies in nested modules and components is not the component's own.
    let mut depth = 0usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(invalid)? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                return Err(ComponentError::NotAComponent { what: "a core WebAssembly module" });
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => {
                depth += 1;
                if depth > MAX_NESTING as usize {
                    return Err(ComponentError::TooCostly {
                        what: "levels of nesting",
                        found: depth as u64,
                        limit: MAX_NESTING.into(),
                    });
                }
            }
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CustomSection(section) => {
                custom.add(section.data().len() as u64)?;
                if section.name() == SECTION {
                    found.manifests.push(section.data());
                }
            }
            Payload::ComponentImportSection(section) => {
                imported.add(section.count().into())?;
                for import in section.into_iter().take_while(|_| depth == 0) {
                    found.imports.push(import.map_err(invalid)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) => {
                exported.add(section.count().into())?;
                for export in section.into_iter().take_while(|_| depth == 0) {
                    found.exports.push(export.map_err(invalid)?.name.name.to_owned());
                }
            }
            Payload::ImportSection(section) => imported.add(section.count().into())?,
            Payload::ExportSection(section) => exported.add(section.count().into())?,
            Payload::TypeSection(section) => types.add(section.count().into())?,
            Payload::CoreTypeSection(section) => types.add(section.count().into())?,
            Payload::ComponentTypeSection(section) => types.add(section.count().into())?,
            Payload::DataSection(section) => data.add(section.count().into())?,
            Payload::ElementSection(section) => elements.add(section.count().into())?,
            Payload::GlobalSection(section) => globals.add(section.count().into())?,
            Payload::MemorySection(section) => {
                for declared in section {
                    memory.add(declared.map_err(invalid)?.initial.saturating_mul(PAGE_BYTES))?;
                }
            }
            Payload::CodeSectionStart { count, .. } => functions.add(count.into())?,
            Payload::CodeSectionEntry(body) => {
                let size = body.range().len();
                if size > MAX_BODY_BYTES {
                    return Err(ComponentError::TooCostly {
                        what: "bytes in one function",
                        found: size as u64,
                        limit: MAX_BODY_BYTES as u64,
                    });
                }
            }
            Payload::InstanceSection(section) => {
                for instance in section {
                    if matches!(instance.map_err(invalid)?, Instance::Instantiate { .. }) {
                        core_instances.add(1)?;
                    }
                }
            }
            Payload::ComponentInstanceSection(section) => {
                for instance in section {
                    if matches!(instance.map_err(invalid)?, ComponentInstance::Instantiate { .. }) {
                        instances.add(1)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

struct Counter {
    what: &'static str,
    found: u64,
    limit: u64,
}

impl Counter {
    fn new(what: &'static str, limit: u64) -> Self {
        Self { what, found: 0, limit }
    }

    fn add(&mut self, n: u64) -> Result<(), ComponentError> {
        self.found = self.found.saturating_add(n);
        if self.found > self.limit {
            return Err(ComponentError::TooCostly { what: self.what, found: self.found, limit: self.limit });
        }
        Ok(())
    }
}
