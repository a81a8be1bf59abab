//! One call of one component, from a fresh instance to its end, inside one deadline.
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use futures_util::FutureExt;
use psn_bindings::step::exports::psn::plugin::lifecycle::State;
use psn_bindings::task::exports::psn::plugin::runner;
use psn_bindings::types as wit;
use serde_json::Value;
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::Runtime;
use super::convert::{Converter, Report, StepState};
use super::error::{CallError, Failure, MEMORY, Phase};
use super::guest::{Capabilities, Guest};
use super::limiter::{Denied, Limiter, MAX_TABLE_ELEMENTS};
use super::load::{Loaded, Pre};
use crate::capabilities::{Call, Exceeded, Usage};
use crate::plugins::Wish;

/// How many bytes a guest may hand over in one call of the host, or in its answer. wasmtime's own limit of 128 MiB lets a guest
/// have the host copy that much in a loop.
const HOSTCALL_BYTES: usize = 4 << 20;

/// Functions named in a crash report: the innermost ones.
const REPORTED_FRAMES: usize = 5;

/// The longest function name in a crash report, in bytes. Rust's can be endless.
const MAX_FRAME_NAME: usize = 200;

/// How a call ended. What it used is known in any case.
#[derive(Clone, Debug)]
pub struct CallOutcome<T> {
    pub result: Result<T, CallError>,
    pub usage: Usage,
    /// Where secrets were stopped on their way to the guest or from it. Each was told as a warning already.
    pub leaks: Vec<String>,
}

impl<T> CallOutcome<T> {
    pub fn map<U>(self, with: impl FnOnce(T) -> U) -> CallOutcome<U> {
        CallOutcome { result: self.result.map(with), usage: self.usage, leaks: self.leaks }
    }
}

/// What is asked of a component.
enum Ask {
    Inspect,
    Apply,
    Verify,
    Destroy,
    Run(runner::Invocation),
}

impl Ask {
    fn name(&self) -> &'static str {
        match self {
            Ask::Inspect => "inspect",
            Ask::Apply => "apply",
            Ask::Verify => "verify",
            Ask::Destroy => "destroy",
            Ask::Run(_) => "run",
        }
    }
}

/// As it came from the guest.
enum Raw {
    State(Result<State, wit::Failure>),
    Report(Result<wit::Report, wit::Failure>),
    Json(Result<String, wit::Failure>),
}

/// As psn works with it.
enum Answer {
    State(StepState),
    Report(Report),
    Json(Value),
}

/// What a component answered: that it succeeded with something, or that it failed.
type Answered<T> = Result<T, Failure>;

impl Runtime {
    /// What is true now; changes nothing.
    pub async fn inspect(&self, loaded: &Loaded, caps: Capabilities, call: Call) -> CallOutcome<Answered<StepState>> {
        self.call(loaded, caps, call, Ask::Inspect).await.map(|answered| {
            answered.map(|answer| match answer {
                Answer::State(state) => state,
                Answer::Report(_) | Answer::Json(_) => unreachable!("inspect answers a state"),
            })
        })
    }

    /// Makes it true.
    pub async fn apply(&self, loaded: &Loaded, caps: Capabilities, call: Call) -> CallOutcome<Answered<Report>> {
        self.call(loaded, caps, call, Ask::Apply).await.map(report)
    }

    /// Whether what was made works.
    pub async fn verify(&self, loaded: &Loaded, caps: Capabilities, call: Call) -> CallOutcome<Answered<Report>> {
        self.call(loaded, caps, call, Ask::Verify).await.map(report)
    }

    /// Removes what the step made.
    pub async fn destroy(&self, loaded: &Loaded, caps: Capabilities, call: Call) -> CallOutcome<Answered<Report>> {
        self.call(loaded, caps, call, Ask::Destroy).await.map(report)
    }

    /// Runs a task with a JSON payload; `scheduled_at` in microseconds since 1970-01-01T00:00:00Z. Answers a JSON object.
    pub async fn run_task(
        &self,
        loaded: &Loaded,
        caps: Capabilities,
        call: Call,
        payload: String,
        scheduled_at: Option<i64>,
    ) -> CallOutcome<Answered<Value>> {
        self.call(loaded, caps, call, Ask::Run(runner::Invocation { payload, scheduled_at })).await.map(|answered| {
            answered.map(|answer| match answer {
                Answer::Json(json) => json,
                Answer::State(_) | Answer::Report(_) => unreachable!("run answers JSON"),
            })
        })
    }

    async fn call(&self, loaded: &Loaded, caps: Capabilities, call: Call, ask: Ask) -> CallOutcome<Answered<Answer>> {
        let started = Instant::now();
        let deadline = call.deadline;
        let mut store = Store::new(&self.engine, Guest::new(caps, call, loaded.limits().memory));
        store.limiter(|guest| &mut guest.limiter);
        store.set_hostcall_fuel(HOSTCALL_BYTES);
        // At the first tick, so that the callback is asked at every one.
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |_| {
            // Yielding lets the timers of this thread run; interrupting does not depend on them.
            Ok(if deadline.passed() {
                UpdateDeadline::Interrupt
            } else {
                UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now()))
            })
        });
        let mut phase = Phase::Start;
        let ended = if deadline.passed() {
            None
        } else {
            let _ticking = self.ticker.run();
            // A panic in a host function must not take the other steps along.
            let work = AssertUnwindSafe(enter(loaded.pre(), &mut store, ask, &mut phase)).catch_unwind();
            tokio::time::timeout_at(deadline.at().into(), work).await.ok()
        };
        // The instance is gone from here on, with all that it held open.
        let mut guest = store.into_data();
        let result = match ended {
            None => Err(CallError::Deadline { after: started.elapsed(), phase }),
            Some(Err(_panic)) => Err(CallError::HostPanicked),
            Some(Ok(Err(Stop::WrongWorld(e)))) => Err(e),
            Some(Ok(Err(Stop::Error(e)))) => Err(classify(&e, &guest.limiter, phase, started, &mut guest.call)),
            Some(Ok(Ok(raw))) => convert(raw, &mut guest.call),
        };
        let result = result.map_err(|e| by_policy(e, loaded));
        if let Some(wasi) = guest.wasi.take() {
            wasi.tell(&mut guest.call);
        }
        guest.call.meter.memory_peak(guest.limiter.peak());
        let usage = guest.call.meter.finish(started.elapsed());
        CallOutcome { result, usage, leaks: guest.call.leaks }
    }
}

fn report(answered: Answered<Answer>) -> Answered<Report> {
    answered.map(|answer| match answer {
        Answer::Report(report) => report,
        Answer::State(_) | Answer::Json(_) => unreachable!("apply, verify and destroy answer a report"),
    })
}

enum Stop {
    Error(wasmtime::Error),
    WrongWorld(CallError),
}

impl From<wasmtime::Error> for Stop {
    fn from(e: wasmtime::Error) -> Self {
        Stop::Error(e)
    }
}

/// Starts an instance and asks it.
async fn enter(pre: &Pre, store: &mut Store<Guest>, ask: Ask, phase: &mut Phase) -> Result<Raw, Stop> {
    let asked = ask.name();
    match (pre, ask) {
        (Pre::Task(pre), Ask::Run(invocation)) => {
            let task = pre.instantiate_async(&mut *store).await?;
            *phase = Phase::Run;
            Ok(Raw::Json(task.psn_plugin_runner().call_run(store, &invocation).await?))
        }
        (Pre::Task(_), _) => Err(Stop::WrongWorld(CallError::WrongWorld { asked, is: "task", needs: "step" })),
        (Pre::Step(_), Ask::Run(_)) => {
            Err(Stop::WrongWorld(CallError::WrongWorld { asked, is: "step", needs: "task" }))
        }
        (Pre::Step(pre), ask) => {
            let step = pre.instantiate_async(&mut *store).await?;
            *phase = Phase::Run;
            let step = step.psn_plugin_lifecycle();
            Ok(match ask {
                Ask::Inspect => Raw::State(step.call_inspect(store).await?),
                Ask::Apply => Raw::Report(step.call_apply(store).await?),
                Ask::Verify => Raw::Report(step.call_verify(store).await?),
                Ask::Destroy | Ask::Run(_) => Raw::Report(step.call_destroy(store).await?),
            })
        }
    }
}

fn convert(raw: Raw, call: &mut Call) -> Result<Answered<Answer>, CallError> {
    let mut converter = Converter(call);
    Ok(Ok(match raw {
        Raw::State(Ok(state)) => Answer::State(converter.state(state)?),
        Raw::Report(Ok(report)) => Answer::Report(converter.report(report)?),
        Raw::Json(Ok(json)) => Answer::Json(converter.object(&json)?),
        Raw::State(Err(failure)) | Raw::Report(Err(failure)) | Raw::Json(Err(failure)) => {
            return Ok(Err(converter.failure(failure)));
        }
    }))
}

/// A limit that the operator lowered is not the manifest's to raise.
fn by_policy(e: CallError, loaded: &Loaded) -> CallError {
    let CallError::Limit { what, limit } = e else { return e };
    let lowered =
        loaded.manifest().withheld.iter().find(|w| matches!(w.wish, Wish::Limit { field, .. } if field == what));
    match lowered {
        Some(withheld) => CallError::PolicyLimit { what, limit, line: withheld.line.clone() },
        None => e,
    }
}

/// Why a guest stopped, by the types of what stopped it.
fn classify(e: &wasmtime::Error, limiter: &Limiter, phase: Phase, started: Instant, call: &mut Call) -> CallError {
    if let Some(exceeded) = e.downcast_ref::<Exceeded>() {
        return CallError::Limit { what: exceeded.what, limit: exceeded.limit };
    }
    if e.is::<PoolConcurrencyLimitError>() {
        return CallError::Busy;
    }
    if let Some(exit) = e.downcast_ref::<I32Exit>() {
        return CallError::Exited(exit.0);
    }
    let trap = e.downcast_ref::<Trap>();
    if trap == Some(&Trap::Interrupt) {
        return CallError::Deadline { after: started.elapsed(), phase };
    }
    // A guest that is denied memory rarely survives it: what it then trips over is not the cause.
    match limiter.denied() {
        Some(Denied::Memory) => return CallError::Limit { what: MEMORY, limit: limiter.max_memory() },
        Some(Denied::Table) => return CallError::Limit { what: "table elements", limit: MAX_TABLE_ELEMENTS as u64 },
        None => {}
    }
    let reason = match trap {
        Some(trap) => trap.to_string(),
        None => format!("{:#}", e.root_cause()),
    };
    let reason = call.spoken("error", &reason, MAX_REASON);
    let backtrace = e.downcast_ref::<WasmBacktrace>().map(|b| backtrace(b, call)).unwrap_or_default();
    match phase {
        Phase::Start => CallError::StartFailed { reason, backtrace },
        Phase::Run => CallError::Trapped { reason, backtrace },
    }
}

/// The longest reason for a crash, in bytes.
const MAX_REASON: usize = 2 << 10;

/// Names of functions come from the component: they are its author's words.
fn backtrace(backtrace: &WasmBacktrace, call: &mut Call) -> Vec<String> {
    let names = backtrace.frames().iter().filter_map(|frame| frame.func_name());
    names.take(REPORTED_FRAMES).map(|name| call.spoken("error", name, MAX_FRAME_NAME)).collect()
}
