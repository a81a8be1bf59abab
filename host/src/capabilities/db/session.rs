//! One connection as the plugin's role. Whatever a guest asks for runs inside of a transaction that sets its own limits: behind a
//! transaction-mode pooler nothing else holds.
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;

use futures_util::StreamExt as _;
use sqlx::postgres::{PgConnection, PgStatement};
use sqlx::{
    AssertSqlSafe, Column as _, Connection as _, Either, Executor as _, Row as _, SqlSafeStr as _, Statement as _,
};

use tokio::time::Sleep;
use uuid::Uuid;

use super::DbAccess;
use super::fault::Fault;
use super::values::{self, Form, Value};
use crate::capabilities::Deadline;
use crate::hub::connection::{HubUrl, connect_url};

/// Rows in one reply. Above this a cursor is the right tool.
pub(super) const MAX_ROWS: usize = 10_000;
/// Bytes in one reply: it is held here and copied into the guest, whose memory is 64 MiB by default.
pub(super) const MAX_REPLY_BYTES: usize = 8 << 20;
/// What a value costs besides its own bytes.
const VALUE_BYTES: usize = 16;
/// Milliseconds until the server notices that nobody waits for its answer any more.
const ALONE_MS: u32 = 1_000;
/// Milliseconds that one statement waits for another's lock.
const LOCK_MS: u128 = 10_000;
/// Descriptions of statements that are kept on one connection.
const DESCRIPTIONS: usize = 64;
/// The one cursor of its session.
const CURSOR: &str = "psn_cursor";

/// What a transaction begins with.
#[derive(Clone, Copy, Default)]
pub(super) struct Begin {
    /// The user whose rows are seen.
    pub(super) as_user: Option<Uuid>,
}

#[derive(Debug, Default)]
pub(super) struct Reply {
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Vec<Value>>,
    pub(super) affected: u64,
}

pub(super) struct Session {
    connection: PgConnection,
    /// What Postgres said about the types of statements that ran before. Behind a pooler the statements themselves are gone with their
    /// transaction, but need no second description.
    described: HashMap<String, PgStatement>,
    /// A statement failed: Postgres will turn the commit into a rollback, without saying so.
    failed: bool,
    timer: Timer,
}

impl Session {
    pub(super) async fn open(access: &DbAccess, deadline: Deadline) -> Result<Self, Fault> {
        let none = || {
            Fault::Unavailable(
                "this plugin has no role in the hub's database: run psn run migrate, which makes it or says why not"
                    .to_owned(),
            )
        };
        let url = HubUrl::parse("the plugin's connection string", access.url.as_ref().ok_or_else(none)?)?;
        let connection = match connect_url(&url, &access.tls, deadline).await {
            Err(_) if deadline.passed() => return Err(Fault::Deadline),
            other => other?,
        };
        let mut session = Self { connection, described: HashMap::new(), failed: false, timer: Timer::default() };
        let mut timer = session.timer.take();
        timer.within(deadline, session.refuse_powerful()).await?;
        session.timer = timer;
        Ok(session)
    }

    /// Grants are the wall that the database keeps; a role that goes through it must not be used, however it came to be that way.
    async fn refuse_powerful(&mut self) -> Result<(), Fault> {
        // An owner has all rights to what it owns, and its policies do not hold for it.
        let sql = "SELECT session_user = current_user AND NOT r.rolsuper AND NOT r.rolbypassrls AND NOT r.rolcreaterole AND NOT r.rolcreatedb AND NOT r.rolreplication
                   AND NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.member = r.oid)
                   AND NOT EXISTS (SELECT FROM pg_catalog.pg_shdepend d
                                   WHERE d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND d.refobjid = r.oid AND d.deptype = 'o')
                   FROM pg_catalog.pg_roles r WHERE r.rolname = session_user";
        let plain: Option<bool> =
            sqlx::query_scalar(sql).persistent(false).fetch_optional(&mut self.connection).await?;
        if plain == Some(true) {
            return Ok(());
        }
        Err(Fault::Denied("the plugin's database role may do more than its manifest says: run psn run migrate, which says what to take from it".to_owned()))
    }

    pub(super) async fn begin(&mut self, begin: Begin, deadline: Deadline) -> Result<(), Fault> {
        self.failed = false;
        // At least 1: 0 is no limit.
        let limit = deadline.remaining().as_millis().clamp(1, i32::MAX as u128);
        let lock = limit.min(LOCK_MS);
        // Set to nobody, too, so that no setting of the role's or the database's stands in. A UUID needs no quoting.
        let user = begin.as_user.map(|user| user.to_string()).unwrap_or_default();
        // Strings must mean what the policy's parser took them for.
        let sql = format!(
            "BEGIN; SET LOCAL search_path = pg_catalog, public, pg_temp; SET LOCAL standard_conforming_strings = on; SET LOCAL row_security = on; \
             SET LOCAL TIME ZONE 'UTC'; SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = {lock}; \
             SET LOCAL client_connection_check_interval = {ALONE_MS}; SET LOCAL app.current_user_id = '{user}'"
        );
        let Self { connection, timer, .. } = self;
        let begun = async {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
            Ok(())
        };
        timer.within(deadline, begun).await
    }

    pub(super) async fn query(&mut self, sql: &str, params: &[Value], deadline: Deadline) -> Result<Reply, Fault> {
        self.watched(deadline, sql, params, Keep::Rows).await
    }

    pub(super) async fn execute(&mut self, sql: &str, params: &[Value], deadline: Deadline) -> Result<u64, Fault> {
        Ok(self.watched(deadline, sql, params, Keep::Count).await?.affected)
    }

    pub(super) async fn declare(&mut self, sql: &str, params: &[Value], deadline: Deadline) -> Result<(), Fault> {
        let sql = format!("DECLARE {CURSOR} NO SCROLL CURSOR FOR {sql}");
        self.watched(deadline, &sql, params, Keep::Count).await.map(drop)
    }

    pub(super) async fn fetch(&mut self, rows: usize, deadline: Deadline) -> Result<Reply, Fault> {
        self.watched(deadline, &format!("FETCH FORWARD {rows} FROM {CURSOR}"), &[], Keep::Rows).await
    }

    pub(super) async fn commit(&mut self, deadline: Deadline) -> Result<(), Fault> {
        if self.failed {
            self.rollback(deadline).await?;
            let message = "the transaction is rolled back: one of its statements had failed".to_owned();
            return Err(Fault::Database { message, sqlstate: Some("25P02".to_owned()) });
        }
        self.end("COMMIT", deadline).await
    }

    pub(super) async fn rollback(&mut self, deadline: Deadline) -> Result<(), Fault> {
        self.end("ROLLBACK", deadline).await
    }

    async fn end(&mut self, sql: &'static str, deadline: Deadline) -> Result<(), Fault> {
        let Self { connection, timer, .. } = self;
        let ended = async {
            // Their names would mean something else on the pooler's next server connection.
            connection.clear_cached_statements().await?;
            sqlx::raw_sql(sql).execute(connection).await?;
            Ok(())
        };
        timer.within(deadline, ended).await
    }

    async fn watched(&mut self, deadline: Deadline, sql: &str, params: &[Value], keep: Keep) -> Result<Reply, Fault> {
        let mut timer = self.timer.take();
        let reply = timer.within(deadline, self.run(sql, params, keep)).await;
        self.timer = timer;
        self.failed |= reply.is_err();
        reply
    }

    async fn described(&mut self, sql: &str) -> Result<PgStatement, Fault> {
        if let Some(statement) = self.described.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.connection.prepare_with(AssertSqlSafe(sql).into_sql_str(), &[]).await?;
        if self.described.len() == DESCRIPTIONS {
            self.described.clear();
        }
        self.described.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    async fn run(&mut self, sql: &str, params: &[Value], keep: Keep) -> Result<Reply, Fault> {
        let statement = self.described(sql).await?;
        let arguments = values::arguments(&statement, params)?;
        let columns = statement.columns().iter().map(|c| c.name().to_owned()).collect();
        let forms: Vec<_> = statement.columns().iter().map(|c| Form::of(c.type_info())).collect();
        let mut reply = Reply { columns, ..Reply::default() };
        let mut bytes = 0usize;
        let mut answer = self.connection.fetch_many(statement.query_with(arguments).persistent(false));
        while let Some(item) = answer.next().await {
            match item? {
                Either::Left(done) => reply.affected += done.rows_affected(),
                Either::Right(_) if matches!(keep, Keep::Count) => {}
                Either::Right(row) => {
                    let mut values = Vec::with_capacity(row.len());
                    for (column, form) in statement.columns().iter().zip(&forms) {
                        let raw = row.try_get_raw(column.ordinal())?;
                        let value = values::decode(column, *form, &raw)?;
                        bytes += VALUE_BYTES + values::weight(&value);
                        values.push(value);
                    }
                    reply.rows.push(values);
                    if reply.rows.len() > MAX_ROWS || bytes > MAX_REPLY_BYTES {
                        let words = format!(
                            "the answer has more than {MAX_ROWS} rows or {} MiB: add a LIMIT, or open a cursor",
                            MAX_REPLY_BYTES >> 20
                        );
                        return Err(Fault::TooLarge(words));
                    }
                }
            }
        }
        Ok(reply)
    }
}

#[derive(Clone, Copy)]
enum Keep {
    Rows,
    Count,
}

/// One timer for all that a session does: a new one may wake the thread that waits for the earliest.
#[derive(Default)]
struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    fn take(&mut self) -> Self {
        Self(self.0.take())
    }

    async fn within<T>(
        &mut self,
        deadline: Deadline,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let at = deadline.at().into();
        let timer = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if timer.deadline() != at {
            timer.as_mut().reset(at);
        }
        tokio::select! {
            biased;
            done = work => done,
            () = timer.as_mut() => Err(Fault::Deadline),
        }
    }
}
