use psn_bindings::imports::psn::plugin::http::{Error, Host, Request, Response};

use super::Http;
use crate::capabilities::View;

impl Host for View<'_, Http> {
    async fn send(&mut self, _request: Request) -> wasmtime::Result<Result<Response, Error>> {
        self.call.meter.host_call(1)?;
        let _ = &self.cap.secrets;
        Ok(Err(Error { code: "denied".into(), message: "no call is allowed yet".into(), sent: false }))
    }
}
