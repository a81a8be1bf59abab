//! The hub's database, as the plugin's own Postgres role: it can do what `[db]` in the manifest says, and row-level security
//! applies to it.

mod value;

use std::{fmt, rc::Rc};

pub use value::{FromValue, Uuid, Value};

use crate::sys;

/// Values for `$1`, `$2`, …: `params![id, "draft", 3]`.
#[doc(hidden)]
#[macro_export]
macro_rules! params {
    () => { &[] as &[$crate::db::Value] };
    ($($value:expr),+ $(,)?) => { &[$($crate::db::Value::from($value)),+] as &[$crate::db::Value] };
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// denied, database, unavailable, too-large, deadline, column, or a later one.
    pub code: String,
    pub message: String,
    /// Where Postgres refused.
    pub sqlstate: Option<String>,
}

impl Error {
    pub fn is_unique_violation(&self) -> bool {
        self.sqlstate.as_deref() == Some("23505")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.sqlstate {
            Some(sqlstate) => write!(f, "The database refused: {} (SQLSTATE {sqlstate})", self.message),
            None => write!(f, "The database call failed: {}", self.message),
        }
    }
}

impl std::error::Error for Error {}

#[derive(Debug, Clone)]
pub struct Row {
    columns: Rc<[String]>,
    values: Vec<Value>,
}

impl Row {
    /// `Option<T>` where the column may be null.
    pub fn get<T: FromValue>(&self, column: &str) -> Result<T, Error> {
        let error = |message: String| Error { code: "column".into(), message, sqlstate: None };
        let index =
            self.columns.iter().position(|name| name == column).ok_or_else(|| {
                error(format!("the query answers no column `{column}`, but {}", self.columns.join(", ")))
            })?;
        let value = self.values.get(index).unwrap_or(&Value::Null);
        T::from_value(value).ok_or_else(|| {
            error(format!("column `{column}` holds {}, where {} was expected", value.type_name(), T::EXPECTED))
        })
    }
}

/// As it crosses the border to the host.
#[derive(Debug, Clone)]
pub(crate) struct RawRows {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<Value>>,
}

impl RawRows {
    fn into_rows(self) -> Vec<Row> {
        let columns: Rc<[String]> = self.columns.into();
        self.rows.into_iter().map(|values| Row { columns: columns.clone(), values }).collect()
    }
}

/// All rows at once; the host caps their number and size. For many, [`open_cursor`].
pub fn query(sql: &str, params: &[Value]) -> Result<Vec<Row>, Error> {
    Ok(sys::db_query(sql, params)?.into_rows())
}

/// The first row, if there is one.
pub fn query_first(sql: &str, params: &[Value]) -> Result<Option<Row>, Error> {
    Ok(query(sql, params)?.into_iter().next())
}

/// Answers the number of rows affected.
pub fn execute(sql: &str, params: &[Value]) -> Result<u64, Error> {
    sys::db_execute(sql, params)
}

/// Rows are fetched `batch` at a time while they are iterated over: constant memory however many there are.
pub fn open_cursor(sql: &str, params: &[Value], batch: u32) -> Result<Cursor, Error> {
    let cursor = sys::db_open_cursor(sql, params)?;
    Ok(Cursor { cursor, batch: batch.max(1), fetched: Vec::new().into_iter(), finished: false })
}

pub struct Cursor {
    cursor: sys::Cursor,
    batch: u32,
    fetched: std::vec::IntoIter<Row>,
    finished: bool,
}

impl Iterator for Cursor {
    type Item = Result<Row, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(row) = self.fetched.next() {
            return Some(Ok(row));
        }
        if self.finished {
            return None;
        }
        match self.cursor.next(self.batch) {
            Ok(rows) => {
                self.fetched = rows.into_rows().into_iter();
                let row = self.fetched.next();
                self.finished = row.is_none();
                row.map(Ok)
            }
            Err(error) => {
                self.finished = true;
                Some(Err(error))
            }
        }
    }
}

/// Dropped without [`Transaction::commit`], it is rolled back. No HTTP call can be made while one is open.
pub struct Transaction {
    transaction: sys::Transaction,
}

pub fn begin() -> Result<Transaction, Error> {
    Ok(Transaction { transaction: sys::db_begin(None)? })
}

/// A transaction for one user: row-level security shows it that user's rows.
pub fn begin_as(user: &Uuid) -> Result<Transaction, Error> {
    Ok(Transaction { transaction: sys::db_begin(Some(user.as_str()))? })
}

impl Transaction {
    pub fn query(&self, sql: &str, params: &[Value]) -> Result<Vec<Row>, Error> {
        Ok(self.transaction.query(sql, params)?.into_rows())
    }

    pub fn query_first(&self, sql: &str, params: &[Value]) -> Result<Option<Row>, Error> {
        Ok(self.query(sql, params)?.into_iter().next())
    }

    pub fn execute(&self, sql: &str, params: &[Value]) -> Result<u64, Error> {
        self.transaction.execute(sql, params)
    }

    pub fn commit(self) -> Result<(), Error> {
        self.transaction.commit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;

    fn row() -> Row {
        let raw = RawRows {
            columns: ["id", "n", "at", "note", "flag", "ratio", "doc"].map(String::from).to_vec(),
            rows: vec![vec![
                Value::Uuid(Uuid::from("6f1c")),
                Value::Int(7),
                Value::Timestamp(Timestamp::from_micros(5)),
                Value::Null,
                Value::Bool(true),
                Value::Float(1.5),
                Value::Json(serde_json::json!({"a": 1})),
            ]],
        };
        raw.into_rows().remove(0)
    }

    #[test]
    fn columns_come_out_as_what_is_asked_for() {
        let row = row();
        assert_eq!(row.get::<Uuid>("id").unwrap().as_str(), "6f1c");
        assert_eq!(row.get::<String>("id").unwrap(), "6f1c");
        assert_eq!(row.get::<i64>("n").unwrap(), 7);
        assert_eq!(row.get::<i32>("n").unwrap(), 7);
        assert_eq!(row.get::<f64>("n").unwrap(), 7.0);
        assert_eq!(row.get::<Timestamp>("at").unwrap().as_micros(), 5);
        assert_eq!(row.get::<Option<String>>("note").unwrap(), None);
        assert_eq!(row.get::<Option<i64>>("n").unwrap(), Some(7));
        assert!(row.get::<bool>("flag").unwrap());
        assert_eq!(row.get::<serde_json::Value>("doc").unwrap()["a"], 1);
    }

    #[test]
    fn a_wrong_column_or_type_says_what_there_is() {
        let row = row();
        let error = row.get::<i64>("m").unwrap_err();
        assert!(error.message.contains("no column `m`") && error.message.contains("id, n, at"), "{error}");
        let error = row.get::<String>("note").unwrap_err();
        assert!(error.message.contains("holds null, where text was expected"), "{error}");
        let error = row.get::<i64>("flag").unwrap_err();
        assert!(error.message.contains("holds a boolean, where an integer was expected"), "{error}");
    }

    #[test]
    fn parameters() {
        let none: Option<i64> = None;
        assert_eq!(
            params!["a", 1, true, none, Some(2)],
            [Value::Text("a".into()), Value::Int(1), Value::Bool(true), Value::Null, Value::Int(2)]
        );
        assert!(params![].is_empty());
    }
}
