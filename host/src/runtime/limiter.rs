//! One account of memory over all memories and tables of a call. wasmtime's own limits are for each memory: forty memories of
//! 64 MiB pass a limit of 64 MiB.
use wasmtime::ResourceLimiter;

use crate::plugins::component::MAX_CORE_INSTANTIATIONS;

/// The most linear memories of one component, together. Each takes address space, which is cheap but not endless; nearly all
/// components have one.
pub(crate) const MAX_MEMORIES: usize = 8;

/// The most tables of one component. The contract's shim has one, and each module with indirect calls.
pub(crate) const MAX_TABLES: usize = 32;

/// The most elements of all tables together. Each takes a pointer: 2 MiB. An interpreter has about 20,000.
pub(crate) const MAX_TABLE_ELEMENTS: usize = 256 << 10;

/// What a guest could not have. It is told so by WebAssembly's own means, and most then give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    Memory,
    Table,
}

#[derive(Debug)]
pub(super) struct Limiter {
    max_memory: usize,
    /// Bytes of all memories. None shrinks while its store lives.
    memory: usize,
    table_elements: usize,
    denied: Option<Denied>,
}

impl Limiter {
    pub(super) fn new(max_memory: u64) -> Self {
        Self {
            max_memory: usize::try_from(max_memory).unwrap_or(usize::MAX),
            memory: 0,
            table_elements: 0,
            denied: None,
        }
    }

    /// The most bytes of linear memory at any time.
    pub(super) fn peak(&self) -> u64 {
        self.memory as u64
    }

    pub(super) fn max_memory(&self) -> u64 {
        self.max_memory as u64
    }

    /// The last growth that was denied.
    pub(super) fn denied(&self) -> Option<Denied> {
        self.denied
    }
}

/// Whether `total` may grow as asked. What the declared maximum forbids does not count: it fails anyway, and counting it would
/// have to be undone.
fn grow(total: &mut usize, limit: usize, current: usize, desired: usize, maximum: Option<usize>) -> Result<(), bool> {
    if maximum.is_some_and(|max| desired > max) {
        return Err(false);
    }
    match total.checked_add(desired.saturating_sub(current)) {
        Some(sum) if sum <= limit => {
            *total = sum;
            Ok(())
        }
        _ => Err(true),
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let grown = grow(&mut self.memory, self.max_memory, current, desired, maximum);
        if grown == Err(true) {
            self.denied = Some(Denied::Memory);
        }
        Ok(grown.is_ok())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let grown = grow(&mut self.table_elements, MAX_TABLE_ELEMENTS, current, desired, maximum);
        if grown == Err(true) {
            self.denied = Some(Denied::Table);
        }
        Ok(grown.is_ok())
    }

    fn instances(&self) -> usize {
        MAX_CORE_INSTANTIATIONS as usize
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn memories_are_counted_together() {
        let mut l = Limiter::new(64 * MIB as u64);
        assert!(l.memory_growing(0, 40 * MIB, None).unwrap());
        assert!(l.memory_growing(0, 20 * MIB, None).unwrap());
        assert!(!l.memory_growing(0, 5 * MIB, None).unwrap());
        assert_eq!(l.denied(), Some(Denied::Memory));
        assert!(l.memory_growing(20 * MIB, 24 * MIB, None).unwrap());
        assert_eq!(l.peak(), 64 * MIB as u64);
    }

    #[test]
    fn what_fails_for_its_declared_maximum_takes_nothing() {
        let mut l = Limiter::new(64 * MIB as u64);
        for _ in 0..1000 {
            assert!(!l.memory_growing(MIB, 3 * MIB, Some(2 * MIB)).unwrap());
        }
        assert_eq!((l.peak(), l.denied()), (0, None));
        assert!(l.memory_growing(0, 64 * MIB, Some(usize::MAX)).unwrap());
    }

    #[test]
    fn tables_are_counted_together() {
        let mut l = Limiter::new(0);
        assert!(l.table_growing(0, MAX_TABLE_ELEMENTS - 1, None).unwrap());
        assert!(!l.table_growing(0, 2, None).unwrap());
        assert_eq!(l.denied(), Some(Denied::Table));
        assert!(!l.table_growing(0, usize::MAX, None).unwrap());
    }
}
