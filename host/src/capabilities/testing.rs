//! What the tests of the capabilities share: a call without a component.
use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::ResourceTable;

use super::{Call, Deadline, Meter, MeterLimits, View};
use crate::events::{Event, EventSink, Level, Recorder};
use crate::plugins::manifest::Manifest;
use crate::redact::Redactor;
use crate::secret::{MemoryBackend, Secret, Secrets};

/// A manifest with these tables, of one of psn's own plugins.
pub(crate) fn manifest(tables: &str) -> Manifest {
    let text = format!(
        "[plugin]\nname = \"tester\"\nversion = \"0.1.0\"\nworld = \"psn:plugin/step@0.1.0\"\nsummary = \"s\"\n{tables}"
    );
    Manifest { own: true, ..Manifest::parse(text.as_bytes()).unwrap() }
}

/// A capability, and a call to use it in.
pub(crate) struct Rig<C> {
    pub(crate) cap: C,
    pub(crate) call: Call,
    pub(crate) table: ResourceTable,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) recorder: Arc<Recorder>,
}

impl<C> Rig<C> {
    pub(crate) fn new(cap: C) -> Self {
        Self::with_secrets(|_| cap)
    }

    pub(crate) fn with_secrets(cap: impl FnOnce(Arc<Secrets>) -> C) -> Self {
        let redactor = Arc::new(Redactor::new());
        let backend = MemoryBackend(std::sync::Mutex::default());
        let secrets = Arc::new(Secrets::open(Box::new(backend), redactor.clone()).unwrap());
        let recorder = Arc::new(Recorder::default());
        let call = Call {
            plugin: "tester".into(),
            run_id: "run-1".into(),
            attempt: 1,
            deadline: Deadline::after(Duration::from_secs(60)),
            meter: Meter::new(MeterLimits::default()),
            redactor,
            events: EventSink::new(recorder.clone()),
            leaks: Vec::new(),
            transaction_open: false,
        };
        Self { cap: cap(secrets.clone()), call, table: ResourceTable::new(), secrets, recorder }
    }

    pub(crate) fn view(&mut self) -> View<'_, C> {
        View { cap: &mut self.cap, call: &mut self.call, table: &mut self.table }
    }

    pub(crate) fn secret(&self, name: &str, value: &str) {
        self.secrets.set(name, Secret::new(value)).unwrap();
    }

    pub(crate) fn warnings(&self) -> Vec<String> {
        let warning = |e| match e {
            Event::Log { level: Level::Warn, message, .. } => Some(message),
            _ => None,
        };
        self.recorder.events().into_iter().filter_map(warning).collect()
    }
}
