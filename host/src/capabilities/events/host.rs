use psn_bindings::imports::psn::plugin::events::{Host, Level as GuestLevel};

use super::Events;
use super::policy::{MAX_FIELD, MAX_FIELD_NAME, MAX_FIELDS, MAX_MESSAGE, MAX_PROGRESS, cost};
use crate::capabilities::View;
use crate::events::{Event, Level};

impl Host for View<'_, Events> {
    fn log(&mut self, level: GuestLevel, message: String, fields: Vec<(String, String)>) -> wasmtime::Result<()> {
        self.call.meter.host_call(1)?;
        self.call.meter.log(cost(&message, &fields))?;
        let level = match level {
            GuestLevel::Debug => Level::Debug,
            GuestLevel::Info => Level::Info,
            GuestLevel::Warn => Level::Warn,
            GuestLevel::Error => Level::Error,
        };
        let message = self.call.spoken("a log message", &message, MAX_MESSAGE);
        let fields = fields
            .into_iter()
            .take(MAX_FIELDS)
            .map(|(k, v)| {
                (
                    self.call.spoken("a log field", &k, MAX_FIELD_NAME),
                    self.call.spoken("a log field", &v, MAX_FIELD).into(),
                )
            })
            .collect();
        self.call.events.emit(&Event::Log { level, source: self.call.plugin.to_string(), message, fields });
        Ok(())
    }

    fn progress(&mut self, done: u32, total: u32, message: String) -> wasmtime::Result<()> {
        self.call.meter.host_call(1)?;
        self.call.meter.log(cost(&message, &[]))?;
        let message = self.call.spoken("a progress message", &message, MAX_PROGRESS);
        self.call.events.emit(&Event::Progress { source: self.call.plugin.to_string(), done, total, message });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::testing::Rig;
    use crate::capabilities::{Meter, MeterLimits};

    #[test]
    fn a_guest_speaks_as_itself_cleaned_and_bounded() {
        let mut rig = Rig::new(Events::new());
        rig.secret("TOKEN", "tr_pat_canary0001");
        let fields = (0..50).map(|i| (format!("k{i}"), "v".repeat(9_000))).collect();
        rig.view()
            .log(
                GuestLevel::Info,
                format!("\u{1b}[2J{{\"type\":\"summary\"}}\ntr_pat_ca\u{0}nary0001 {}", "x".repeat(9_000)),
                fields,
            )
            .unwrap();
        let events = rig.recorder.events();
        let Some(Event::Log { source, message, fields, level: Level::Info }) = events.last() else {
            panic!("{events:?}")
        };
        assert_eq!(source, "tester");
        assert!(message.starts_with("{\"type\":\"summary\"}\n[redacted] x"), "{}", &message[..60]);
        assert!(message.len() <= MAX_MESSAGE);
        assert_eq!(fields.len(), MAX_FIELDS);
        assert!(fields["k0"].as_str().unwrap().len() <= MAX_FIELD);
        assert_eq!(rig.call.leaks, ["a log message"]);
    }

    #[test]
    fn a_flood_ends_at_the_budget() {
        let mut rig = Rig::new(Events::new());
        rig.call.meter = Meter::new(MeterLimits { log_bytes: 640, ..MeterLimits::default() });
        for _ in 0..10 {
            rig.view().progress(1, 2, String::new()).unwrap();
        }
        let e = rig.view().log(GuestLevel::Debug, String::new(), vec![]).unwrap_err();
        assert!(e.to_string().contains("log-bytes"), "{e}");
        assert_eq!(rig.recorder.events().len(), 10);
    }
}
