//! What is tried on one table, as psn_app, and what must come of it. Everything happens in transactions that are rolled back. Statements
//! as a user name no rows but those of the two that are made up for it; those as nobody name none, and meet none, unless a policy is
//! missing.
use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use super::rows::{Row, Values, literal, needed_keys};
use super::tables::{Column, Table};
use super::{Behaviour, Expect, Got};

/// How deep tables may refer to each other before a row of the last one is given up on.
const MAX_DEPTH: usize = 8;
/// A lock that a person's program holds must not hang the look at it, nor the other way round.
const BEGIN: &str = "BEGIN; SET LOCAL statement_timeout = '15s'; SET LOCAL lock_timeout = '5s'";

/// A way in: a connection, and what it is called.
pub(super) struct Way<'c> {
    pub(super) name: &'c str,
    pub(super) connection: &'c mut PgConnection,
    /// One on which no user was ever set.
    pub(super) fresh: &'c mut PgConnection,
}

/// Why a table could not be tried, for a person.
pub(super) enum Stopped {
    /// No row of it can be made up.
    NoRow(String),
    Sql(sqlx::Error),
}

impl From<sqlx::Error> for Stopped {
    fn from(e: sqlx::Error) -> Self {
        Stopped::Sql(e)
    }
}

struct Trial<'t> {
    table: &'t Table,
    way: String,
    found: Vec<Behaviour>,
}

impl Trial<'_> {
    fn add(&mut self, case: &'static str, expected: Expect, got: Got) {
        self.found.push(Behaviour { table: self.table.label.clone(), way: self.way.clone(), case, expected, got });
    }

    /// Runs the statement and undoes it.
    async fn run(
        &mut self,
        connection: &mut PgConnection,
        case: &'static str,
        sql: String,
        expected: Expect,
    ) -> Result<(), sqlx::Error> {
        let got = attempt(connection, sql).await?;
        self.add(case, expected, got);
        Ok(())
    }
}

/// A statement in a savepoint that is rolled back: its count of rows (or its one number), or its SQLSTATE.
pub(super) async fn attempt(connection: &mut PgConnection, sql: String) -> Result<Got, sqlx::Error> {
    raw(connection, "SAVEPOINT psn_verify").await?;
    let is_count = sql.starts_with("SELECT");
    let query = sqlx::raw_sql(AssertSqlSafe(sql));
    let answer = if is_count {
        match query.fetch_one(&mut *connection).await {
            Ok(row) => row.try_get::<i64, _>(0).map(|n| n.unsigned_abs()),
            Err(e) => Err(e),
        }
    } else {
        query.execute(&mut *connection).await.map(|done| done.rows_affected())
    };
    let got = match answer {
        Ok(rows) => Got::Rows(rows),
        Err(sqlx::Error::Database(e)) => {
            Got::State { sqlstate: e.code().unwrap_or_default().into_owned(), message: e.message().to_owned() }
        }
        Err(e) => return Err(e),
    };
    raw(connection, "ROLLBACK TO SAVEPOINT psn_verify; RELEASE SAVEPOINT psn_verify").await?;
    Ok(got)
}

pub(super) async fn raw(connection: &mut PgConnection, sql: &'static str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(sql).execute(connection).await.map(drop)
}

pub(super) async fn begin(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    raw(connection, BEGIN).await
}

/// For the rest of the transaction.
async fn set_user(connection: &mut PgConnection, user: &str) -> Result<(), sqlx::Error> {
    let sql = format!("SELECT pg_catalog.set_config('app.current_user_id', '{}', true)", user.replace('\'', "''"));
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop)
}

/// One of the two made-up users, with a row in the table.
struct Side {
    user: String,
    parents: BTreeMap<i64, Values>,
    row: Row,
    values: Values,
}

/// Everything that is tried on one table.
pub(super) async fn table(all: &[Table], table: &Table, way: &mut Way<'_>) -> Result<Vec<Behaviour>, Stopped> {
    let mut trial = Trial { table, way: way.name.to_owned(), found: Vec::new() };
    begin(way.connection).await?;
    let done = inside(all, &mut trial, way).await;
    // Also where something went wrong: nothing of it stays.
    raw(way.connection, "ROLLBACK").await?;
    let Some(row) = done? else { return Ok(trial.found) };

    // The pooler may hand this transaction another server connection, or the same: either way no user is left of the last one.
    begin(way.connection).await?;
    nobody(&mut trial, way.connection, &row, ["select after rollback", "insert after rollback"]).await?;
    unscoped(&mut trial, way.connection, ["update after rollback", "delete after rollback"]).await?;
    raw(way.connection, "ROLLBACK").await?;
    begin(way.fresh).await?;
    nobody(&mut trial, way.fresh, &row, ["select, no setting", "insert, no setting"]).await?;
    unscoped(&mut trial, way.fresh, ["update, no setting", "delete, no setting"]).await?;
    raw(way.fresh, "ROLLBACK").await?;
    Ok(trial.found)
}

async fn nobody(
    trial: &mut Trial<'_>,
    connection: &mut PgConnection,
    row: &Row,
    [select, insert]: [&'static str; 2],
) -> Result<(), sqlx::Error> {
    let (table, rights) = (trial.table, &trial.table.rights);
    trial.run(connection, select, count(table, ""), Expect::where_allowed(rights.select, 0)).await?;
    trial.run(connection, insert, row.insert(table), Expect::Denied).await
}

/// Without a condition, and so without a look at a column: only the command's own policy stands in the way.
async fn unscoped(
    trial: &mut Trial<'_>,
    connection: &mut PgConnection,
    [update, delete]: [&'static str; 2],
) -> Result<(), sqlx::Error> {
    let (table, rights) = (trial.table, &trial.table.rights);
    let Some(owner) = table.owner() else { return Ok(()) };
    let sql = format!("UPDATE {} SET {} = DEFAULT", table.name, owner.name);
    trial.run(connection, update, sql, Expect::where_allowed(rights.update, 0)).await?;
    let sql = format!("DELETE FROM {}", table.name);
    trial.run(connection, delete, sql, Expect::where_allowed(rights.delete, 0)).await
}

fn count(table: &Table, condition: &str) -> String {
    format!("SELECT count(*) FROM {}{condition}", table.name)
}

/// Answers a row of the first user's, where the table takes any.
async fn inside(all: &[Table], trial: &mut Trial<'_>, way: &mut Way<'_>) -> Result<Option<Row>, Stopped> {
    let (table, rights) = (trial.table, &trial.table.rights);
    let db = &mut *way.connection;
    let user = uuid::Uuid::new_v4().to_string();
    let Some(owner) = table.owner() else {
        return shared(trial, db, &user).await.map(|()| None);
    };
    if !rights.insert {
        // What psn_app may not write it cannot be given rows of: a user without rows sees none, and writing is refused.
        set_user(db, &user).await?;
        trial.run(db, "select", count(table, ""), Expect::where_allowed(rights.select, 0)).await?;
        refused(trial, db).await?;
        return Ok(None);
    }
    let a = side(all, trial, db, user, 1).await?;
    let b = side(all, trial, db, uuid::Uuid::new_v4().to_string(), 2).await?;
    for (me, other) in [(&a, &b), (&b, &a)] {
        own(trial, db, owner, me, other).await?;
        others(trial, db, owner, me, other).await?;
        conflicts(trial, db, owner, me, other).await?;
    }
    set_user(db, "").await?;
    nobody(trial, db, &a.row, ["select, empty setting", "insert, empty setting"]).await?;
    let both = both(table, owner, &a, &b);
    let update = format!("UPDATE {} SET {o} = {o}{both}", table.name, o = owner.name);
    trial.run(db, "update, empty setting", update, Expect::where_allowed(rights.update, 0)).await?;
    let delete = format!("DELETE FROM {}{both}", table.name);
    trial.run(db, "delete, empty setting", delete, Expect::where_allowed(rights.delete, 0)).await?;
    Ok(Some(a.row))
}

/// A table without an owner column: everyone may read it where psn_app may, and nobody may write.
async fn shared(trial: &mut Trial<'_>, db: &mut PgConnection, user: &str) -> Result<(), Stopped> {
    let (table, rights) = (trial.table, &trial.table.rights);
    if rights.insert || rights.update || rights.delete {
        return Err(Stopped::NoRow("psn_app may write it, and no policy compares one column with the user".to_owned()));
    }
    set_user(db, user).await?;
    if !rights.select {
        trial.run(db, "select", count(table, ""), Expect::Denied).await?;
    }
    Ok(refused(trial, db).await?)
}

/// Commands that psn_app has no right to.
async fn refused(trial: &mut Trial<'_>, db: &mut PgConnection) -> Result<(), sqlx::Error> {
    let (table, rights) = (trial.table, &trial.table.rights);
    let column = table.columns.iter().find(|c| !c.generated).map_or("ctid", |c| c.name.as_str());
    let statements = [
        (rights.insert, "insert", format!("INSERT INTO {} DEFAULT VALUES", table.name)),
        (rights.update, "update", format!("UPDATE {} SET {column} = {column} WHERE false", table.name)),
        (rights.delete, "delete", format!("DELETE FROM {} WHERE false", table.name)),
    ];
    for (_, case, sql) in statements.into_iter().filter(|(may, ..)| !may) {
        trial.run(db, case, sql, Expect::Denied).await?;
    }
    Ok(())
}

/// Makes a user's row, with the rows that it refers to, as that user.
async fn side(
    all: &[Table],
    trial: &mut Trial<'_>,
    db: &mut PgConnection,
    user: String,
    nth: u32,
) -> Result<Side, Stopped> {
    let table = trial.table;
    set_user(db, &user).await?;
    let mut parents = BTreeMap::new();
    for key in needed_keys(table) {
        Box::pin(parent(all, key.table, &user, nth, db, &mut parents, 0)).await?;
    }
    let row = row_that_fits(table, &user, &parents, nth, db).await?;
    trial.run(db, "insert", row.insert(table), Expect::Rows(1)).await?;
    let values = insert_returning(table, &row, db)
        .await?
        .map_err(|got| Stopped::NoRow(format!("its own user cannot insert and read back a row: {got}")))?;
    trial.add("insert, RETURNING", Expect::Rows(1), Got::Rows(1));
    Ok(Side { user, parents, row, values })
}

/// A row of a table that another refers to, and before it those that this one refers to.
async fn parent(
    all: &[Table],
    oid: i64,
    user: &str,
    nth: u32,
    db: &mut PgConnection,
    made: &mut BTreeMap<i64, Values>,
    depth: usize,
) -> Result<(), Stopped> {
    if made.contains_key(&oid) {
        return Ok(());
    }
    let table = all.iter().find(|t| t.oid == oid && t.rights.insert);
    let table =
        table.ok_or_else(|| Stopped::NoRow("it refers to a table that psn_app may not insert into".to_owned()))?;
    if depth == MAX_DEPTH {
        return Err(Stopped::NoRow(format!("its references lead in a circle, by way of {}", table.label)));
    }
    for key in needed_keys(table) {
        Box::pin(parent(all, key.table, user, nth, db, made, depth + 1)).await?;
    }
    let row = row_that_fits(table, user, made, nth, db).await?;
    let values = insert_returning(table, &row, db).await?.map_err(|got| {
        Stopped::NoRow(format!("no row can be made up for {}, which it refers to: {got}", table.label))
    })?;
    made.insert(oid, values);
    Ok(())
}

/// A row of the least columns; where a check refuses that, one of all columns.
async fn row_that_fits(
    table: &Table,
    user: &str,
    parents: &BTreeMap<i64, Values>,
    nth: u32,
    db: &mut PgConnection,
) -> Result<Row, Stopped> {
    let least = Row::new(table, user, parents, nth, false).map_err(Stopped::NoRow)?;
    match attempt(db, least.insert(table)).await? {
        Got::State { sqlstate, message } if sqlstate.starts_with("23") => {
            let full = Row::new(table, user, parents, nth, true).map_err(Stopped::NoRow)?;
            match attempt(db, full.insert(table)).await? {
                Got::State { sqlstate, .. } if sqlstate.starts_with("23") => Err(Stopped::NoRow(message)),
                _ => Ok(full),
            }
        }
        // What row-level security makes of it is the caller's case.
        _ => Ok(least),
    }
}

/// Inserts for the rest of the transaction. The inner error is the database's refusal.
async fn insert_returning(table: &Table, row: &Row, db: &mut PgConnection) -> Result<Result<Values, Got>, sqlx::Error> {
    // A text array of up to any number of columns; NULL stays NULL.
    let columns: Vec<&Column> = table.columns.iter().collect();
    let list = columns.iter().map(|c| format!("{}::text", c.name)).collect::<Vec<_>>().join(", ");
    let sql = format!("{} RETURNING pg_catalog.to_jsonb(ARRAY[{list}])::text", row.insert(table));
    raw(db, "SAVEPOINT psn_verify_row").await?;
    match sqlx::raw_sql(AssertSqlSafe(sql)).fetch_one(&mut *db).await {
        Ok(answer) => {
            let text: String = answer.try_get(0)?;
            let values: Vec<Option<String>> = serde_json::from_str(&text).map_err(|e| sqlx::Error::Decode(e.into()))?;
            Ok(Ok(columns.iter().zip(values).filter_map(|(c, v)| Some((c.number, v?))).collect()))
        }
        Err(sqlx::Error::Database(e)) => {
            raw(db, "ROLLBACK TO SAVEPOINT psn_verify_row").await?;
            Ok(Err(Got::State { sqlstate: e.code().unwrap_or_default().into_owned(), message: e.message().to_owned() }))
        }
        Err(e) => Err(e),
    }
}

/// ` WHERE owner IN (…)`: the rows of both made-up users, and nobody else's.
fn both(table: &Table, owner: &Column, a: &Side, b: &Side) -> String {
    format!(" WHERE {} IN ({}, {})", owner.name, owned(table, owner, a), owned(table, owner, b))
}

fn owned(table: &Table, owner: &Column, side: &Side) -> String {
    literal(table, owner.number, side.values.get(&owner.number).map_or("", String::as_str))
}

/// One user's own rows.
async fn own(
    trial: &mut Trial<'_>,
    db: &mut PgConnection,
    owner: &Column,
    a: &Side,
    b: &Side,
) -> Result<(), sqlx::Error> {
    let (table, rights) = (trial.table, &trial.table.rights);
    let (name, both) = (&table.name, both(table, owner, a, b));
    set_user(db, &a.user).await?;
    trial.run(db, "select", count(table, ""), Expect::where_allowed(rights.select, 1)).await?;
    let update = format!("UPDATE {name} SET {o} = {o}{both}", o = owner.name);
    trial.run(db, "update", update.clone(), Expect::where_allowed(rights.update, 1)).await?;
    let returning = format!("{update} RETURNING 1");
    trial.run(db, "update, RETURNING", returning, Expect::where_allowed(rights.update, 1)).await?;
    trial.run(db, "delete", format!("DELETE FROM {name}{both}"), Expect::where_allowed(rights.delete, 1)).await?;
    // With row_security off what a policy would narrow is an error: so a policy does stand in the way.
    let off = format!("SET LOCAL row_security = off; UPDATE {name} SET {o} = {o}{both}", o = owner.name);
    trial.run(db, "update, row_security off", off, Expect::Denied).await
}

/// The other user's rows.
async fn others(
    trial: &mut Trial<'_>,
    db: &mut PgConnection,
    owner: &Column,
    a: &Side,
    b: &Side,
) -> Result<(), Stopped> {
    let (table, rights) = (trial.table, &trial.table.rights);
    let (name, o) = (&table.name, &owner.name);
    let theirs = format!(" WHERE {o} = {}", owned(table, owner, b));
    trial.run(db, "select other's", count(table, &theirs), Expect::where_allowed(rights.select, 0)).await?;
    let update = format!("UPDATE {name} SET {o} = {o}{theirs}");
    trial.run(db, "update other's", update, Expect::where_allowed(rights.update, 0)).await?;
    trial
        .run(db, "delete other's", format!("DELETE FROM {name}{theirs}"), Expect::where_allowed(rights.delete, 0))
        .await?;

    let row = Row::new(table, &b.user, &b.parents, 3, false).map_err(Stopped::NoRow)?.insert(table);
    trial.run(db, "insert other's id", row.clone(), Expect::Denied).await?;
    trial.run(db, "insert other's id, RETURNING", format!("{row} RETURNING 1"), Expect::Denied).await?;
    trial.run(db, "insert other's id, ON CONFLICT", format!("{row} ON CONFLICT DO NOTHING"), Expect::Denied).await?;
    let give = format!("UPDATE {name} SET {o} = {} WHERE {o} = {}", owned(table, owner, b), owned(table, owner, a));
    Ok(trial.run(db, "update to other's id", give, Expect::Denied).await?)
}

/// Rows that are there already, by their primary key.
async fn conflicts(
    trial: &mut Trial<'_>,
    db: &mut PgConnection,
    owner: &Column,
    a: &Side,
    b: &Side,
) -> Result<(), sqlx::Error> {
    let (table, rights) = (trial.table, &trial.table.rights);
    let key: Vec<&Column> = table.primary.iter().filter_map(|n| table.column(*n)).collect();
    if key.is_empty() || key.iter().any(|c| c.generated) || !rights.select {
        return Ok(());
    }
    let at = |side: &Side| {
        key.iter().fold(a.row.clone(), |row, c| {
            row.with(table, c.number, side.values.get(&c.number).map_or("", String::as_str))
        })
    };
    let names = key.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
    let mine = at(a).insert(table);
    let update = format!("ON CONFLICT ({names}) DO UPDATE SET {o} = excluded.{o}", o = owner.name);
    trial.run(db, "ON CONFLICT DO NOTHING", format!("{mine} ON CONFLICT DO NOTHING"), Expect::Rows(0)).await?;
    let expected = Expect::where_allowed(rights.update, 1);
    trial.run(db, "ON CONFLICT DO UPDATE", format!("{mine} {update}"), expected).await?;
    // A key that holds the owner cannot meet another's row, unless it is nothing else.
    if key.len() == 1 || key.iter().all(|c| c.number != owner.number) {
        let theirs = format!("{} {update}", at(b).insert(table));
        trial.run(db, "ON CONFLICT DO UPDATE other's", theirs, Expect::Denied).await?;
    }
    Ok(())
}
