//! A row that a table takes, made up from the catalog.
use std::collections::BTreeMap;

use super::tables::{Column, Table};

/// Column number → value as text, of a row that is there.
pub(super) type Values = BTreeMap<i16, String>;

/// Column number → SQL, of a row to be inserted.
#[derive(Clone)]
pub(super) struct Row(BTreeMap<i16, String>);

impl Row {
    /// `parents`: a row of each table that this one must refer to, by the table's oid. `user` is whose the row is to be.
    /// `full` gives a value to columns that may be NULL too.
    pub(super) fn new(
        table: &Table,
        user: &str,
        parents: &BTreeMap<i64, Values>,
        nth: u32,
        full: bool,
    ) -> Result<Self, String> {
        let mut row = BTreeMap::new();
        for key in needed_keys(table) {
            let parent = parents.get(&key.table).ok_or("a row that it must refer to is missing")?;
            for (column, target) in key.columns.iter().zip(&key.target) {
                let value = parent.get(target).ok_or("the row that it must refer to has no such value")?;
                row.insert(*column, literal(table, *column, value));
            }
        }
        if let Some(owner) = table.owner().filter(|o| table.is_tenant(o.number)) {
            row.insert(owner.number, literal(table, owner.number, user));
        }
        let referring: Vec<i16> = table.keys.iter().flat_map(|k| k.columns.iter().copied()).collect();
        for column in &table.columns {
            let wanted = !column.filled && (column.not_null || (full && !referring.contains(&column.number)));
            if wanted && !column.generated && !row.contains_key(&column.number) {
                let value = made_up(table, column, nth)?;
                row.insert(column.number, literal(table, column.number, &value));
            }
        }
        Ok(Self(row))
    }

    pub(super) fn with(&self, table: &Table, column: i16, value: &str) -> Self {
        let mut row = self.0.clone();
        row.insert(column, literal(table, column, value));
        Self(row)
    }

    pub(super) fn insert(&self, table: &Table) -> String {
        let names: Vec<&str> = self.0.keys().filter_map(|n| table.column(*n)).map(|c| c.name.as_str()).collect();
        let values: Vec<&str> = self.0.values().map(String::as_str).collect();
        if names.is_empty() {
            return format!("INSERT INTO {} DEFAULT VALUES", table.name);
        }
        format!("INSERT INTO {} ({}) VALUES ({})", table.name, names.join(", "), values.join(", "))
    }
}

/// References that a row cannot do without: no column of theirs may be NULL, or they say whose the row is.
pub(super) fn needed_keys(table: &Table) -> impl Iterator<Item = &super::tables::ForeignKey> {
    let owner = table.owner().map(|o| o.number);
    let needed =
        move |n: &i16| owner == Some(*n) || table.column(*n).is_some_and(|c| c.not_null && !c.filled && !c.generated);
    table.keys.iter().filter(move |k| k.columns.iter().all(needed))
}

pub(super) fn literal(table: &Table, column: i16, value: &str) -> String {
    let sql_type = table.column(column).map_or("text", |c| c.sql_type.as_str());
    format!("'{}'::{sql_type}", value.replace('\'', "''"))
}

fn made_up(table: &Table, column: &Column, nth: u32) -> Result<String, String> {
    if let Some(label) = &column.label {
        return Ok(label.clone());
    }
    if let Some(allowed) = table.checks.iter().find_map(|check| allowed_value(check, &column.name)) {
        return Ok(allowed);
    }
    let value = match (column.base.as_str(), column.category.as_str()) {
        ("uuid", _) => uuid::Uuid::new_v4().to_string(),
        ("json" | "jsonb", _) => "{}".to_owned(),
        ("bytea", _) => format!("\\x{nth:02x}"),
        (_, "S") => {
            let text = format!("psn-{nth}-{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
            let most = column.sql_type.split(['(', ')']).nth(1).and_then(|n| n.parse().ok()).unwrap_or(text.len());
            text.chars().rev().take(most).collect()
        }
        (_, "N") => (nth + 1).to_string(),
        (_, "B") => "true".to_owned(),
        ("time" | "timetz", _) => format!("12:00:{:02}", nth % 60),
        (_, "D") => format!("2000-01-{:02}", 1 + nth % 28),
        (_, "T") => format!("{} days", 1 + nth),
        (_, "A") => "{}".to_owned(),
        (_, "R") => "empty".to_owned(),
        (_, "I") => "127.0.0.1".to_owned(),
        ("point", _) => "(0,0)".to_owned(),
        _ => return Err(format!("psn has no value for {} of type {}", column.name, column.sql_type)),
    };
    Ok(value)
}

/// The first value that a check like `status = ANY (ARRAY['draft'::text, …])` or `kind = 'a'::text` allows the column.
fn allowed_value(check: &str, column: &str) -> Option<String> {
    let forms = [format!("({column} = ANY (ARRAY["), format!("({column} = ANY ((ARRAY["), format!("({column} = ")];
    let rest = forms.iter().find_map(|form| check.find(form.as_str()).map(|at| &check[at + form.len()..]))?;
    let mut chars = rest.strip_prefix('\'')?.chars().peekable();
    let mut value = String::new();
    while let Some(c) = chars.next() {
        if c != '\'' {
            value.push(c);
        } else if chars.peek() == Some(&'\'') {
            value.push('\'');
            chars.next();
        } else {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_a_check_allows() {
        let check = "CHECK ((status = ANY (ARRAY['draft'::text, 'published'::text])))";
        assert_eq!(allowed_value(check, "status").as_deref(), Some("draft"));
        assert_eq!(allowed_value("CHECK ((kind = 'it''s'::text))", "kind").as_deref(), Some("it's"));
        assert_eq!(allowed_value(check, "kind"), None);
        assert_eq!(allowed_value("CHECK ((attempt >= 0))", "attempt"), None);
        assert_eq!(allowed_value("CHECK ((n = 5))", "n"), None);
    }
}
