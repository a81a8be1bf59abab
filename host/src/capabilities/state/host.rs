use psn_bindings::imports::psn::plugin::state::Host;

use super::StateNotes;
use crate::capabilities::View;

impl Host for View<'_, StateNotes> {
    async fn get(&mut self, _key: String) -> wasmtime::Result<Option<String>> {
        let _ = &self.cap.file;
        todo!()
    }
    async fn put(&mut self, _key: String, _value: String) -> wasmtime::Result<Result<(), String>> {
        todo!()
    }
    async fn delete(&mut self, _key: String) -> wasmtime::Result<Result<(), String>> {
        todo!()
    }
}
