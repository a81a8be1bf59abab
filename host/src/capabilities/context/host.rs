use std::time::Duration;

use psn_bindings::imports::psn::plugin::context::Host;

use super::Context;
use super::policy::MAX_RANDOM;
use crate::capabilities::View;

impl Host for View<'_, Context> {
    fn run_id(&mut self) -> wasmtime::Result<String> {
        self.call.meter.host_call(1)?;
        Ok(self.call.run_id.to_string())
    }

    fn hub_id(&mut self) -> wasmtime::Result<String> {
        self.call.meter.host_call(1)?;
        Ok(self.cap.hub_id.clone())
    }

    fn attempt(&mut self) -> wasmtime::Result<u32> {
        self.call.meter.host_call(1)?;
        Ok(self.call.attempt)
    }

    fn setting(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        self.call.meter.host_call(1)?;
        let (value, warning) = self.cap.policy.setting(&name);
        if let Some(warning) = warning {
            self.call.warn(warning);
        }
        Ok(value.map(|v| self.call.redact("a setting", v).into_owned()))
    }

    fn now(&mut self) -> wasmtime::Result<i64> {
        self.call.meter.host_call(1)?;
        Ok(chrono::Utc::now().timestamp_micros())
    }

    async fn sleep_ms(&mut self, ms: u32) -> wasmtime::Result<()> {
        self.call.meter.host_call(1)?;
        let wanted = Duration::from_millis(ms.into());
        let slept = self.call.deadline.clamp(wanted);
        tokio::time::sleep(slept).await;
        if slept < wanted {
            // Cut short by the deadline: the guest must not go on as if it had slept.
            return Err(wasmtime::Trap::Interrupt.into());
        }
        Ok(())
    }

    fn random_bytes(&mut self, len: u32) -> wasmtime::Result<Vec<u8>> {
        self.call.meter.host_call(1)?;
        if len > MAX_RANDOM {
            wasmtime::bail!("context.random-bytes gives at most {MAX_RANDOM} bytes at once; {len} were asked for");
        }
        let mut bytes = vec![0; len as usize];
        getrandom::fill(&mut bytes)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::testing::{Rig, manifest};

    fn context() -> Context {
        Context::new(
            &manifest("[settings]\nnames = [\"neon.region\"]\n"),
            "7f3a0001".into(),
            [("neon.region".into(), "aws-eu".into())].into(),
        )
    }

    #[tokio::test]
    async fn answers_come_from_the_call_and_the_granted_settings() {
        let mut rig = Rig::new(context());
        let mut view = rig.view();
        assert_eq!(view.run_id().unwrap(), "run-1");
        assert_eq!(view.hub_id().unwrap(), "7f3a0001");
        assert_eq!(view.attempt().unwrap(), 1);
        assert_eq!(view.setting("neon.region".into()).unwrap().as_deref(), Some("aws-eu"));
        assert_eq!(view.setting("neon.org_id".into()).unwrap(), None);
        assert!(view.now().unwrap() > 1_700_000_000_000_000);
        assert_eq!(view.random_bytes(32).unwrap().len(), 32);
        assert_ne!(view.random_bytes(32).unwrap(), view.random_bytes(32).unwrap());
        assert!(view.random_bytes(MAX_RANDOM + 1).unwrap_err().to_string().contains("65536"));
        assert_eq!(rig.call.meter.usage().host_calls, 10);
        assert_eq!(rig.warnings().len(), 1);
    }

    #[tokio::test]
    async fn a_sleep_ends_with_the_deadline() {
        let mut rig = Rig::new(context());
        rig.call.deadline = crate::capabilities::Deadline::after(Duration::from_millis(20));
        rig.view().sleep_ms(u32::MAX).await.unwrap_err();
        assert!(rig.call.deadline.passed());
    }
}
