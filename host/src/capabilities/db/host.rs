use psn_bindings::imports::psn::plugin::db::{Cursor, Error, Host, HostCursor, HostTransaction, Rows, Transaction, Value};
use wasmtime::component::Resource;

use super::Db;
use crate::capabilities::View;

impl Host for View<'_, Db> {
    async fn query(&mut self, _sql: String, _params: Vec<Value>) -> wasmtime::Result<Result<Rows, Error>> {
        let _ = &self.cap.access;
        todo!()
    }
    async fn execute(&mut self, _sql: String, _params: Vec<Value>) -> wasmtime::Result<Result<u64, Error>> {
        todo!()
    }
    async fn open_cursor(&mut self, _sql: String, _params: Vec<Value>) -> wasmtime::Result<Result<Resource<Cursor>, Error>> {
        todo!()
    }
    async fn begin(&mut self, _as_user: Option<String>) -> wasmtime::Result<Result<Resource<Transaction>, Error>> {
        todo!()
    }
}

impl HostCursor for View<'_, Db> {
    async fn next(&mut self, _this: Resource<Cursor>, _limit: u32) -> wasmtime::Result<Result<Rows, Error>> {
        todo!()
    }
    async fn drop(&mut self, _this: Resource<Cursor>) -> wasmtime::Result<()> {
        todo!()
    }
}

impl HostTransaction for View<'_, Db> {
    async fn query(&mut self, _this: Resource<Transaction>, _sql: String, _params: Vec<Value>) -> wasmtime::Result<Result<Rows, Error>> {
        todo!()
    }
    async fn execute(&mut self, _this: Resource<Transaction>, _sql: String, _params: Vec<Value>) -> wasmtime::Result<Result<u64, Error>> {
        todo!()
    }
    async fn commit(&mut self, _this: Resource<Transaction>) -> wasmtime::Result<Result<(), Error>> {
        todo!()
    }
    async fn drop(&mut self, _this: Resource<Transaction>) -> wasmtime::Result<()> {
        todo!()
    }
}
