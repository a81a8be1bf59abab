use std::borrow::Cow;

use psn_bindings::imports::psn::plugin::db::{
    Cursor, Error, Host, HostCursor, HostTransaction, Rows, Transaction, Value,
};
use wasmtime::component::Resource;

use super::Db;
use super::fault::Fault;
use super::session::{Begin, MAX_ROWS, Reply, Session};
use crate::capabilities::{Call, View};
use crate::hub::Patience;

/// Parameters of one statement. Lists travel as one array.
const MAX_PARAMS: usize = 1_000;
/// Bytes of the parameters of one statement together.
const MAX_PARAM_BYTES: usize = 8 << 20;

/// What the table holds for a guest's transaction. Without a session once it has failed beyond use.
struct OpenTransaction {
    session: Option<Session>,
}

/// Why a statement of its own did not come to its end.
struct Unfinished {
    fault: Fault,
    /// The commit was on its way.
    committing: bool,
}

impl From<Fault> for Unfinished {
    fn from(fault: Fault) -> Self {
        Self { fault, committing: false }
    }
}

struct OpenCursor {
    session: Option<Session>,
}

impl View<'_, Db> {
    /// Counts the call, and answers the statement as it will be sent.
    fn admit(&mut self, sql: &str, params: &[Value]) -> wasmtime::Result<Result<String, Fault>> {
        self.count()?;
        let bytes: usize = params.iter().map(super::values::weight).sum();
        if params.len() > MAX_PARAMS || bytes > MAX_PARAM_BYTES {
            let words =
                format!("a statement has at most {MAX_PARAMS} parameters of {} MiB together", MAX_PARAM_BYTES >> 20);
            return Ok(Err(Fault::TooLarge(words)));
        }
        let checked = self.cap.policy.check(sql);
        if checked.is_err() {
            // Nothing was sent. All the same, what a refused statement came with is not trusted any further.
            self.cap.idle = None;
        }
        Ok(checked)
    }

    fn count(&mut self) -> wasmtime::Result<()> {
        self.call.meter.host_call(1)?;
        self.call.meter.db_call(1)?;
        Ok(())
    }

    /// One statement in a transaction of its own. A connection that goes away before the commit was asked for has undone it, so that
    /// it runs once more on another one. What becomes of a commit that is on its way, nobody here knows.
    async fn alone(&mut self, sql: String, params: &[Value], rows: bool) -> Result<Reply, Fault> {
        let mut patience = Patience::within(self.call.deadline);
        loop {
            match self.once(&sql, params, rows).await {
                Err(Unfinished { fault: Fault::Lost(_), committing: false }) if patience.again().await => {}
                ended => return ended.map_err(|unfinished| unfinished.fault),
            }
        }
    }

    async fn once(&mut self, sql: &str, params: &[Value], rows: bool) -> Result<Reply, Unfinished> {
        let deadline = self.call.deadline;
        let mut session = self.cap.begin(Begin::default(), deadline).await?;
        let reply = match rows {
            true => session.query(sql, params, deadline).await,
            false => {
                session.execute(sql, params, deadline).await.map(|affected| Reply { affected, ..Reply::default() })
            }
        };
        let ended = match &reply {
            Ok(_) => session.commit(deadline).await,
            Err(e) if e.is_fatal() => return reply.map_err(Unfinished::from),
            Err(_) => session.rollback(deadline).await,
        };
        match ended {
            Ok(()) => self.cap.release(session),
            Err(e) if reply.is_ok() => {
                // A constraint that is checked at the end leaves a healthy connection.
                if !e.is_fatal() {
                    self.cap.release(session);
                }
                return Err(Unfinished { fault: e, committing: true });
            }
            // The statement's own error says more.
            Err(_) => {}
        }
        reply.map_err(Unfinished::from)
    }

    fn answer<T>(&mut self, result: Result<T, Fault>) -> Result<T, Error> {
        result.map_err(|e| e.into_error(self.call))
    }

    fn rows(&mut self, result: Result<Reply, Fault>) -> wasmtime::Result<Result<Rows, Error>> {
        if let Ok(reply) = &result {
            self.call.meter.db_rows(reply.rows.len() as u64)?;
        }
        let result = result.map(|reply| clean(self.call, reply));
        Ok(self.answer(result))
    }

    fn transaction(&mut self, this: &Resource<Transaction>) -> wasmtime::Result<&mut OpenTransaction> {
        Ok(self.table.get_mut(&Resource::<OpenTransaction>::new_borrow(this.rep()))?)
    }

    /// Runs one statement of a transaction.
    async fn inside(
        &mut self,
        this: &Resource<Transaction>,
        sql: &str,
        params: &[Value],
        rows: bool,
    ) -> wasmtime::Result<Result<Reply, Fault>> {
        let sql = match self.admit(sql, params)? {
            Ok(sql) => sql,
            Err(e) => {
                self.transaction(this)?.session = None;
                return Ok(Err(e));
            }
        };
        let deadline = self.call.deadline;
        let open = self.transaction(this)?;
        let Some(session) = &mut open.session else {
            return Ok(Err(over("transaction")));
        };
        let reply = match rows {
            true => session.query(&sql, params, deadline).await,
            false => {
                session.execute(&sql, params, deadline).await.map(|affected| Reply { affected, ..Reply::default() })
            }
        };
        if reply.as_ref().is_err_and(Fault::is_fatal) {
            open.session = None;
        }
        Ok(reply)
    }

    /// A transaction or cursor is over, and its session with it if that is still good.
    async fn close(&mut self, session: Option<Session>) {
        self.cap.in_use = self.cap.in_use.saturating_sub(1);
        if let Some(mut session) = session
            && session.rollback(self.call.deadline).await.is_ok()
        {
            self.cap.release(session);
        }
    }

    fn transaction_ended(&mut self) {
        self.cap.transactions = self.cap.transactions.saturating_sub(1);
        self.call.transaction_open = self.cap.transactions > 0;
    }
}

impl Host for View<'_, Db> {
    async fn query(&mut self, sql: String, params: Vec<Value>) -> wasmtime::Result<Result<Rows, Error>> {
        let reply = match self.admit(&sql, &params)? {
            Ok(sql) => self.alone(sql, &params, true).await,
            Err(e) => Err(e),
        };
        self.rows(reply)
    }

    async fn execute(&mut self, sql: String, params: Vec<Value>) -> wasmtime::Result<Result<u64, Error>> {
        let reply = match self.admit(&sql, &params)? {
            Ok(sql) => self.alone(sql, &params, false).await,
            Err(e) => Err(e),
        };
        Ok(self.answer(reply.map(|r| r.affected)))
    }

    async fn open_cursor(
        &mut self,
        sql: String,
        params: Vec<Value>,
    ) -> wasmtime::Result<Result<Resource<Cursor>, Error>> {
        let sql = match self.admit(&sql, &params)? {
            Ok(sql) => sql,
            Err(e) => return Ok(self.answer(Err(e))),
        };
        let deadline = self.call.deadline;
        let mut session = match self.cap.begin(Begin::default(), deadline).await {
            Ok(session) => session,
            Err(e) => return Ok(self.answer(Err(e))),
        };
        if let Err(e) = session.declare(&sql, &params, deadline).await {
            if !e.is_fatal() && session.rollback(deadline).await.is_ok() {
                self.cap.release(session);
            }
            return Ok(self.answer(Err(e)));
        }
        let handle = self.table.push(OpenCursor { session: Some(session) })?;
        self.cap.in_use += 1;
        Ok(Ok(Resource::new_own(handle.rep())))
    }

    async fn begin(&mut self, as_user: Option<String>) -> wasmtime::Result<Result<Resource<Transaction>, Error>> {
        self.count()?;
        let as_user = match as_user.map(|user| uuid::Uuid::parse_str(&user)).transpose() {
            Ok(user) => user,
            Err(_) => {
                let words = "as-user is not a user's id: give the UUID from users.id";
                return Ok(self.answer(Err(Fault::Denied(words.to_owned()))));
            }
        };
        match self.cap.begin(Begin { as_user }, self.call.deadline).await {
            Ok(session) => {
                let handle = self.table.push(OpenTransaction { session: Some(session) })?;
                self.cap.in_use += 1;
                self.cap.transactions += 1;
                self.call.transaction_open = true;
                Ok(Ok(Resource::new_own(handle.rep())))
            }
            Err(e) => Ok(self.answer(Err(e))),
        }
    }
}

impl HostCursor for View<'_, Db> {
    async fn next(&mut self, this: Resource<Cursor>, limit: u32) -> wasmtime::Result<Result<Rows, Error>> {
        self.count()?;
        let deadline = self.call.deadline;
        let open = self.table.get_mut(&Resource::<OpenCursor>::new_borrow(this.rep()))?;
        // 0 would have Postgres look at the current row once more.
        let limit = usize::try_from(limit).unwrap_or(MAX_ROWS).clamp(1, MAX_ROWS);
        let reply = match &mut open.session {
            Some(session) => session.fetch(limit, deadline).await,
            None => Err(over("cursor")),
        };
        if reply.as_ref().is_err_and(Fault::is_fatal) {
            open.session = None;
        }
        self.rows(reply)
    }

    async fn drop(&mut self, this: Resource<Cursor>) -> wasmtime::Result<()> {
        let open = self.table.delete(Resource::<OpenCursor>::new_own(this.rep()))?;
        self.close(open.session).await;
        Ok(())
    }
}

impl HostTransaction for View<'_, Db> {
    async fn query(
        &mut self,
        this: Resource<Transaction>,
        sql: String,
        params: Vec<Value>,
    ) -> wasmtime::Result<Result<Rows, Error>> {
        let reply = self.inside(&this, &sql, &params, true).await?;
        self.rows(reply)
    }

    async fn execute(
        &mut self,
        this: Resource<Transaction>,
        sql: String,
        params: Vec<Value>,
    ) -> wasmtime::Result<Result<u64, Error>> {
        let reply = self.inside(&this, &sql, &params, false).await?;
        Ok(self.answer(reply.map(|r| r.affected)))
    }

    async fn commit(&mut self, this: Resource<Transaction>) -> wasmtime::Result<Result<(), Error>> {
        self.count()?;
        let open = self.table.delete(Resource::<OpenTransaction>::new_own(this.rep()))?;
        self.cap.in_use = self.cap.in_use.saturating_sub(1);
        self.transaction_ended();
        let Some(mut session) = open.session else {
            return Ok(self.answer(Err(over("transaction"))));
        };
        let committed = session.commit(self.call.deadline).await;
        if !committed.as_ref().is_err_and(Fault::is_fatal) {
            self.cap.release(session);
        }
        Ok(self.answer(committed))
    }

    async fn drop(&mut self, this: Resource<Transaction>) -> wasmtime::Result<()> {
        let open = self.table.delete(Resource::<OpenTransaction>::new_own(this.rep()))?;
        self.close(open.session).await;
        self.transaction_ended();
        Ok(())
    }
}

fn over(what: &str) -> Fault {
    Fault::Unavailable(format!(
        "this {what} is over: an earlier answer of its ended the connection, and everything in it is rolled back"
    ))
}

/// The least number of as many digits as a secret has at least.
const SHORTEST_SECRET: u64 = 10u64.pow(crate::redact::MIN_REDACTED_LEN as u32 - 1);

/// Live secrets do not come back through the database.
fn clean(call: &mut Call, mut reply: Reply) -> Rows {
    for value in reply.rows.iter_mut().flatten() {
        let clean = match value {
            Value::Text(t) => filtered(call, t).map(Value::Text),
            Value::Json(t) => filtered(call, t).map(Value::Json),
            Value::Uuid(t) => filtered(call, t).map(Value::Text),
            Value::Bytes(b) => match call.redactor.redact_bytes(b) {
                Cow::Borrowed(_) => None,
                Cow::Owned(clean) => Some(Value::Bytes(clean)),
            },
            // A number that is a secret: only one that is long enough is looked for, as everywhere.
            Value::Int64(n) if n.unsigned_abs() >= SHORTEST_SECRET => {
                call.redactor.finds(n.to_string().as_bytes()).then_some(Value::Null)
            }
            _ => None,
        };
        if let Some(clean) = clean {
            call.leaked("a database row");
            *value = clean;
        }
    }
    for column in &mut reply.columns {
        if let Some(clean) = filtered(call, column) {
            call.leaked("a database row");
            *column = clean;
        }
    }
    Rows { columns: reply.columns, rows: reply.rows }
}

/// None where there was no secret in it: most values stay where they are.
fn filtered(call: &Call, text: &str) -> Option<String> {
    match call.redactor.redact(text) {
        Cow::Borrowed(_) => None,
        Cow::Owned(clean) => Some(clean),
    }
}
