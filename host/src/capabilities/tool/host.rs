use psn_bindings::imports::psn::plugin::tool::{Error, Host, Output};

use super::Tools;
use crate::capabilities::View;

impl Host for View<'_, Tools> {
    async fn run(&mut self, _name: String, _args: Vec<String>) -> wasmtime::Result<Result<Output, Error>> {
        self.call.meter.host_call(1)?;
        self.call.meter.tool_call(1)?;
        let _ = (&self.cap.tools, &self.cap.secrets, &self.cap.cwd);
        Ok(Err(Error { code: "missing".into(), message: "no tool runs yet".into() }))
    }
}
