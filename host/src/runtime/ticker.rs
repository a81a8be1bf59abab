//! The clock by which running guests are interrupted: one thread per engine, which sleeps while nothing runs.
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wasmtime::Engine;

/// How often a running guest is asked whether its time is up. Deadlines are kept to about this; each tick costs a running guest a
/// yield of some microseconds.
pub(super) const TICK: Duration = Duration::from_millis(10);

pub(super) struct Ticker(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    running: usize,
    stopped: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that could panic is done under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticker {
    pub(super) fn start(engine: &Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let ticker = Self(shared.clone());
        // Weak, so that the thread never keeps an engine alive that nobody else uses.
        let engine = engine.weak();
        std::thread::Builder::new().name("psn-epoch".into()).spawn(move || {
            loop {
                let mut state = shared.lock();
                while state.running == 0 && !state.stopped {
                    state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                if state.stopped {
                    return;
                }
                drop(state);
                std::thread::sleep(TICK);
                let Some(engine) = engine.upgrade() else { return };
                engine.increment_epoch();
            }
        })?;
        Ok(ticker)
    }

    /// The clock goes for as long as this is held.
    pub(super) fn run(&self) -> Ticking {
        self.0.lock().running += 1;
        self.0.changed.notify_one();
        Ticking(self.0.clone())
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.0.lock().stopped = true;
        self.0.changed.notify_one();
    }
}

pub(super) struct Ticking(Arc<Shared>);

impl Drop for Ticking {
    fn drop(&mut self) {
        self.0.lock().running -= 1;
    }
}
