//! The engine: one compiler configuration and one way to allocate instances for a whole process.
use std::num::NonZeroUsize;

use wasmtime::{
    Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails, WasmFeatures,
};

use super::limiter::{MAX_MEMORIES, MAX_TABLE_ELEMENTS, MAX_TABLES};
use crate::plugins::component::{FEATURES, MAX_CORE_INSTANTIATIONS};

/// How deep a guest may recurse, in bytes of its stack. What wasmtime recommends; enough for every interpreter tried.
const WASM_STACK_BYTES: usize = 512 << 10;

/// The stack of a call, in bytes: the guest's part, and the rest for host functions that it calls. Host futures of the database
/// and HTTP clients are tens of KiB.
const ASYNC_STACK_BYTES: usize = 2 << 20;

/// Frames in a trap's backtrace. The cause is nearly always among the innermost ones.
const BACKTRACE_FRAMES: NonZeroUsize = NonZeroUsize::new(16).unwrap();

/// Address space for one linear memory, in bytes. With all 4 GiB that 32 bits can address, compiled code needs no bounds checks;
/// it is address space, not memory.
const RESERVATION: u64 = 4 << 30;

/// The same where a process may not have that much (`ulimit -v`): bounds checks are compiled in, and a memory that outgrows it moves.
const SMALL_RESERVATION: u64 = 16 << 20;

/// Guard pages after a memory where address space is short, in bytes.
const SMALL_GUARD: u64 = 64 << 10;

/// The least address space, in bytes, with which 4 GiB are reserved for each memory: all memories of two instances, and the rest
/// of the process.
const PLENTY: u64 = 2 * MAX_MEMORIES as u64 * RESERVATION;

/// Memories and tables for each concurrent instance in a pool. Nearly all components have one memory, and two tables: their own
/// and one of the shim between them and the contract.
const POOLED_MEMORIES: u32 = 2;
const POOLED_TABLES: u32 = 4;

/// Core instances for each concurrent instance in a pool: the program, the shim, and what fixes it up; more for shared libraries.
const POOLED_CORE_INSTANCES: u32 = 8;

/// How instances get their memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocator {
    /// From the operating system, each time: no cost before the first call. For commands.
    OnDemand,
    /// From a pool that is reserved at start, with room for this many instances at once. For servers: instances start in half the
    /// time, and the slowest of them in a tenth.
    Pooling { instances: u32 },
}

/// How much address space the engine's code is compiled to count on. Code for one does not run in the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressSpace {
    /// 4 GiB for each memory.
    Plenty,
    /// Bounds checks, and memories that move.
    Small,
}

impl AddressSpace {
    fn here() -> Self {
        match rustix::process::getrlimit(rustix::process::Resource::As).current {
            Some(limit) if limit < PLENTY => AddressSpace::Small,
            _ => AddressSpace::Plenty,
        }
    }
}

pub(super) struct Built {
    pub(super) engine: Engine,
    pub(super) space: AddressSpace,
    pub(super) allocator: Allocator,
    /// Why it is another allocator than was asked for.
    pub(super) note: Option<String>,
}

/// An engine with the allocator asked for; on demand where the machine cannot reserve the pool.
pub(super) fn build(allocator: Allocator, max_memory: u64) -> wasmtime::Result<Built> {
    let space = AddressSpace::here();
    if let Allocator::Pooling { instances } = allocator {
        // Making the engine reserves the whole pool: that is the probe.
        match Engine::new(config(space).allocation_strategy(pool(instances, max_memory))) {
            Ok(engine) => return Ok(Built { engine, space, allocator, note: None }),
            Err(e) => {
                let note = format!(
                    "instances are allocated on demand: the pool for {instances} of them could not be reserved ({e:#})"
                );
                let engine = Engine::new(&config(space))?;
                return Ok(Built { engine, space, allocator: Allocator::OnDemand, note: Some(note) });
            }
        }
    }
    Ok(Built { engine: Engine::new(&config(space))?, space, allocator, note: None })
}

/// Which process compiled code is for.
#[cfg(feature = "full")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// One on this machine.
    Here(AddressSpace),
    /// psn's worker, on any of the cloud's machines.
    Worker,
}

/// The platform of the cloud's machines. Named, so that no feature counts that this machine's processor has and another lacks.
#[cfg(feature = "full")]
const WORKER_PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// Compiled code for an engine of this configuration in another process. How that allocates makes no difference to the code.
#[cfg(feature = "full")]
pub(super) fn precompile(target: Target, component: &[u8]) -> wasmtime::Result<Vec<u8>> {
    let config = match target {
        Target::Here(space) => config(space),
        Target::Worker => {
            let mut config = config(AddressSpace::Plenty);
            config.target(WORKER_PLATFORM)?;
            config
        }
    };
    Engine::new(&config)?.precompile_component(component)
}

fn config(space: AddressSpace) -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    // Synchronous exports only: without it a call costs a fifth.
    config.concurrency_support(false);
    config.wasm_features(WasmFeatures::all().difference(FEATURES), false);
    config.max_wasm_stack(WASM_STACK_BYTES);
    config.async_stack_size(ASYNC_STACK_BYTES);
    config.wasm_backtrace_max_frames(Some(BACKTRACE_FRAMES));
    // Function names are enough; a guest's debug information is one more thing to parse.
    config.wasm_backtrace_details(WasmBacktraceDetails::Disable);
    if space == AddressSpace::Small {
        config.memory_reservation(SMALL_RESERVATION);
        config.memory_reservation_for_growth(SMALL_RESERVATION);
        config.memory_guard_size(SMALL_GUARD);
    } else {
        config.memory_reservation(RESERVATION);
    }
    config
}

fn pool(instances: u32, max_memory: u64) -> InstanceAllocationStrategy {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_stacks(instances)
        .total_core_instances(instances.saturating_mul(POOLED_CORE_INSTANCES))
        .total_memories(instances.saturating_mul(POOLED_MEMORIES))
        .total_tables(instances.saturating_mul(POOLED_TABLES))
        .max_core_instances_per_component(MAX_CORE_INSTANTIATIONS)
        .max_memories_per_component(MAX_MEMORIES as u32)
        .max_tables_per_component(MAX_TABLES as u32)
        .table_elements(MAX_TABLE_ELEMENTS)
        .max_memory_size(usize::try_from(max_memory).unwrap_or(usize::MAX));
    InstanceAllocationStrategy::Pooling(pool)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_that_does_not_fit_falls_back_and_says_so() {
        // 2^47 bytes is what a process can address; a million memories of 4 GiB are 2^52.
        let built = build(Allocator::Pooling { instances: 1 << 19 }, 1 << 30).unwrap();
        assert_eq!(built.allocator, Allocator::OnDemand);
        assert!(built.note.unwrap().contains("on demand"));
    }

    #[test]
    fn a_pool_that_fits_is_used() {
        let built = build(Allocator::Pooling { instances: 4 }, 1 << 30).unwrap();
        assert_eq!((built.allocator, built.note), (Allocator::Pooling { instances: 4 }, None));
    }

    #[test]
    fn little_address_space_makes_another_engine_that_works() {
        assert!(Engine::new(&config(AddressSpace::Small)).is_ok());
    }
}
