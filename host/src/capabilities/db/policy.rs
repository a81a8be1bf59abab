//! Which statements reach the database: decided on the parsed statement, and what is sent is that statement written out again, so
//! that Postgres sees nothing that was not looked at. Whatever is not known here is refused.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;

use sqlparser::ast::{
    BinaryOperator, DataType, Expr, FromTable, Function, Ident, ObjectName, Query, Select, SetExpr, Statement,
    TableFactor, TableObject, UnaryOperator, Value, ValueWithSpan, Visit as _, Visitor,
};

use super::allowed::{FUNCTIONS, plain};
use super::columns::{self, Columns, Dotted, Named, Tables};
use super::fault::Fault;
use super::parse::parse;
use crate::plugins::manifest::DbGrant;
use crate::plugins::withheld::{POLICY_TOML, Wish, Withheld};

/// Bytes of one statement. The longest of a first-party plugin has 700.
const MAX_STATEMENT_BYTES: usize = 64 << 10;
/// Bytes of a name, `NAMEDATALEN - 1`: Postgres cuts longer ones, and they would be other names than were looked at.
const MAX_NAME_BYTES: usize = 63;
/// Functions that Postgres has called without brackets, and the parser takes for columns.
const CALLED: [&str; 7] =
    ["current_catalog", "current_role", "current_schema", "current_user", "session_user", "system_user", "user"];
/// Statements whose answer is kept. A plugin has a handful, and runs them again and again.
const KEPT_ANSWERS: usize = 64;

#[derive(Default)]
struct Table {
    select: bool,
    insert: bool,
    update: bool,
    delete: bool,
    columns: Columns,
}

/// What one plugin's statements may touch. Columns are the database's to guard.
pub(super) struct Policy {
    /// Qualified name → commands.
    tables: BTreeMap<String, Table>,
    /// Qualified names.
    functions: BTreeSet<String>,
    /// Statement → as it is sent. Of those that pass only: the answer depends on nothing but the text.
    passed: HashMap<String, String>,
    /// Qualified name, command, and the line of the operator's policy that would allow what it took away.
    withheld: Vec<(String, &'static str, String)>,
}

impl Policy {
    pub(super) fn new(grants: &BTreeMap<String, DbGrant>) -> Self {
        let mut policy =
            Self { tables: BTreeMap::new(), functions: BTreeSet::new(), passed: HashMap::new(), withheld: Vec::new() };
        for (name, grant) in grants {
            match name.split_once('(') {
                Some((function, _)) if grant.execute => {
                    policy.functions.insert(qualified(function.trim()));
                }
                Some(_) => {}
                None => {
                    let table = Table {
                        select: !grant.select.is_empty(),
                        insert: !grant.insert.is_empty(),
                        update: !grant.update.is_empty(),
                        delete: grant.delete,
                        columns: [&grant.select, &grant.insert, &grant.update].into_iter().flatten().cloned().collect(),
                    };
                    policy.tables.insert(qualified(name), table);
                }
            }
        }
        policy
    }

    /// What the operator's policy took away: a denial then names its line.
    pub(super) fn with_withheld(mut self, withheld: &[Withheld]) -> Self {
        self.withheld.extend(withheld.iter().filter_map(|w| match &w.wish {
            Wish::Table { table, right, .. } => {
                let name = table.split_once('(').map_or(table.as_str(), |(function, _)| function.trim());
                Some((qualified(name), *right, w.line.clone()))
            }
            _ => None,
        }));
        self
    }

    /// The refusal of what the manifest asks for and the operator's policy does not allow.
    fn by_policy(&self, name: &str, command: &str) -> Option<Flow> {
        let (_, _, line) = self.withheld.iter().find(|(n, c, _)| n == name && *c == command)?;
        let name = name.strip_prefix("public.").unwrap_or(name);
        Some(refuse(format!(
            "{command} on {name} is not allowed by the operator's policy; in {POLICY_TOML}, {line} would allow it"
        )))
    }

    /// The statement as it is to be sent.
    pub(super) fn check(&mut self, sql: &str) -> Result<String, Fault> {
        if let Some(sent) = self.passed.get(sql) {
            return Ok(sent.clone());
        }
        let sent = self.decide(sql)?;
        if self.passed.len() == KEPT_ANSWERS {
            self.passed.clear();
        }
        self.passed.insert(sql.to_owned(), sent.clone());
        Ok(sent)
    }

    fn decide(&self, sql: &str) -> Result<String, Fault> {
        if sql.len() > MAX_STATEMENT_BYTES {
            return Err(Fault::TooLarge(format!(
                "a statement has at most {} KiB: give values as parameters",
                MAX_STATEMENT_BYTES >> 10
            )));
        }
        let statement = parse(sql)?;
        let mut walk = Walk {
            policy: self,
            visible: Vec::new(),
            bodies: HashMap::new(),
            called: BTreeSet::new(),
            dotted: Dotted::default(),
        };
        if let ControlFlow::Break(refused) = statement.visit(&mut walk) {
            return Err(Fault::Denied(*refused));
        }
        if let Some(name) = walk.dotted.unknown() {
            return Err(Fault::Denied(format!(
                "{name} is not known to be a column: name the columns of functions (AS x(column)) and of subqueries, and in plugin.toml, under [db], those of tables"
            )));
        }
        let text = statement.to_string();
        // A statement that is written otherwise than it is read would be another one by the time Postgres reads it.
        if parse(&text)? != statement {
            return Err(Fault::Denied("this statement cannot be checked: write it in a plainer way".to_owned()));
        }
        Ok(text)
    }
}

impl Tables for Policy {
    fn columns(&self, name: &ObjectName) -> Option<&Columns> {
        let (schema, table) = parts(name)?;
        self.tables.get(&format!("{}.{table}", schema.as_deref().unwrap_or("public"))).map(|t| &t.columns)
    }
}

/// `public` is where names without a schema are.
fn qualified(name: &str) -> String {
    if name.contains('.') { name.to_owned() } else { format!("public.{name}") }
}

/// As Postgres folds it: ASCII only.
pub(super) fn folded(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_ascii_lowercase() }
}

/// The schema, where one is given, and the name.
pub(super) fn parts(name: &ObjectName) -> Option<(Option<String>, String)> {
    let mut idents = Vec::new();
    for part in &name.0 {
        idents.push(folded(part.as_ident()?));
    }
    let last = idents.pop()?;
    match idents.len() {
        0 => Some((None, last)),
        1 => Some((idents.pop(), last)),
        _ => None,
    }
}

type Flow = ControlFlow<Box<String>>;

fn refuse(words: impl Into<String>) -> Flow {
    ControlFlow::Break(Box::new(words.into()))
}

const GO: Flow = ControlFlow::Continue(());

struct Walk<'p> {
    policy: &'p Policy,
    /// What the WITH clauses around the current place define, per query.
    visible: Vec<Vec<Named>>,
    /// What is visible inside of the bodies of WITH clauses not yet walked. A name is not visible in its own body: there it is a table.
    bodies: HashMap<*const Query, Vec<Named>>,
    /// Names in FROM that are functions' and not tables'.
    called: BTreeSet<*const ObjectName>,
    dotted: Dotted,
}

impl Walk<'_> {
    fn may(&self, name: &ObjectName, command: &str, allowed: impl Fn(&Table) -> bool) -> Flow {
        let Some((schema, table)) = parts(name) else {
            return refuse(format!("{name} is no name of a table: write table or schema.table"));
        };
        if schema.is_none()
            && command == "select"
            && self.visible.last().is_some_and(|names| names.iter().any(|(n, _)| *n == table))
        {
            return GO;
        }
        let full = format!("{}.{table}", schema.as_deref().unwrap_or("public"));
        if self.policy.tables.get(&full).is_some_and(allowed) {
            return GO;
        }
        if let Some(refused) = self.policy.by_policy(&full, command) {
            return refused;
        }
        let key = full.strip_prefix("public.").unwrap_or(&full);
        let grant = if command == "delete" { "delete = true".to_owned() } else { format!("{command} = [\"…\"]") };
        refuse(format!("{command} on {key} is not granted. In plugin.toml, under [db]: \"{key}\" = {{ {grant} }}"))
    }

    fn call(&self, name: &ObjectName) -> Flow {
        let Some((schema, function)) = parts(name) else {
            return refuse(format!("{name} is no name of a function"));
        };
        let is_builtin = schema.is_none() && FUNCTIONS.contains(&function.as_str());
        let full = format!("{}.{function}", schema.as_deref().unwrap_or("public"));
        if is_builtin || self.policy.functions.contains(&full) {
            return GO;
        }
        if let Some(refused) = self.policy.by_policy(&full, "execute") {
            return refused;
        }
        let key = full.strip_prefix("public.").unwrap_or(&full);
        refuse(format!(
            "the function {function} is not one that plugins may call. For a function of the hub's own, in plugin.toml, under [db]: \"{key}(…)\" = {{ execute = true }}"
        ))
    }

    fn body(body: &SetExpr) -> Flow {
        match body {
            SetExpr::Select(_)
            | SetExpr::Query(_)
            | SetExpr::Values(_)
            | SetExpr::Insert(_)
            | SetExpr::Update(_)
            | SetExpr::Delete(_) => GO,
            SetExpr::SetOperation { left, right, .. } => {
                Self::body(left)?;
                Self::body(right)
            }
            _ => refuse("only SELECT, INSERT, UPDATE and DELETE"),
        }
    }
}

impl Visitor for Walk<'_> {
    type Break = Box<String>;

    fn pre_visit_statement(&mut self, statement: &Statement) -> Flow {
        match statement {
            Statement::Query(_) => GO,
            Statement::Insert(insert) => match &insert.table {
                TableObject::TableName(name) => {
                    self.called.insert(std::ptr::from_ref(name));
                    let alias = insert.table_alias.as_ref().map(|a| &a.alias);
                    for relation in columns::target(self.policy, &insert.table, alias) {
                        self.dotted.relation(("excluded".to_owned(), relation.1.clone()));
                        self.dotted.relation(relation);
                    }
                    self.may(name, "insert", |t| t.insert)
                }
                _ => refuse("INSERT goes into a table"),
            },
            Statement::Update(update) => match &update.table.relation {
                TableFactor::Table { name, .. } if update.table.joins.is_empty() => {
                    self.called.insert(std::ptr::from_ref(name));
                    self.may(name, "update", |t| t.update)
                }
                _ => refuse("UPDATE changes one table"),
            },
            Statement::Delete(delete) => {
                let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
                match from.as_slice() {
                    [one] if one.joins.is_empty() && delete.tables.is_empty() => match &one.relation {
                        TableFactor::Table { name, .. } => {
                            self.called.insert(std::ptr::from_ref(name));
                            self.may(name, "delete", |t| t.delete)
                        }
                        _ => refuse("DELETE takes rows from one table"),
                    },
                    _ => refuse("DELETE takes rows from one table"),
                }
            }
            _ => refuse("only SELECT, INSERT, UPDATE and DELETE"),
        }
    }

    fn pre_visit_query(&mut self, query: &Query) -> Flow {
        if query.for_clause.is_some()
            || query.settings.is_some()
            || query.format_clause.is_some()
            || !query.pipe_operators.is_empty()
        {
            return refuse(
                "only what Postgres knows: SELECT with FROM, WHERE, GROUP BY, HAVING, WINDOW, ORDER BY, LIMIT, FOR UPDATE",
            );
        }
        Self::body(&query.body)?;
        let mut names = self
            .bodies
            .remove(&std::ptr::from_ref(query))
            .unwrap_or_else(|| self.visible.last().cloned().unwrap_or_default());
        if let Some(with) = &query.with {
            if with.recursive {
                return refuse("WITH RECURSIVE is not for plugins: it may never end");
            }
            for cte in &with.cte_tables {
                self.bodies.insert(std::ptr::from_ref(&*cte.query), names.clone());
                names.push(columns::of_cte(self.policy, &cte.alias, &cte.query, &names));
            }
        }
        self.visible.push(names);
        GO
    }

    fn post_visit_query(&mut self, _: &Query) -> Flow {
        self.visible.pop();
        GO
    }

    fn pre_visit_select(&mut self, select: &Select) -> Flow {
        if select.into.is_some() {
            return refuse("SELECT INTO makes a table: plugins do not");
        }
        GO
    }

    fn pre_visit_relation(&mut self, name: &ObjectName) -> Flow {
        if self.called.contains(&std::ptr::from_ref(name)) {
            return GO;
        }
        self.may(name, "select", |t| t.select)
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> Flow {
        let alias = match factor {
            TableFactor::Table { sample: Some(_), .. } | TableFactor::Derived { sample: Some(_), .. } => {
                return refuse("TABLESAMPLE is not for plugins");
            }
            TableFactor::Table { name, args, alias, .. } => {
                if args.is_some() {
                    self.call(name)?;
                    self.called.insert(std::ptr::from_ref(name));
                }
                alias
            }
            TableFactor::Function { name, alias, .. } => {
                self.call(name)?;
                // Where the parser counts it among the tables, too.
                self.called.insert(std::ptr::from_ref(name));
                alias
            }
            TableFactor::Derived { alias, .. }
            | TableFactor::UNNEST { alias, .. }
            | TableFactor::NestedJoin { alias, .. } => alias,
            _ => return refuse("only tables, subqueries, joins and functions in FROM"),
        };
        if alias.iter().flat_map(|a| &a.columns).any(|c| c.data_type.is_some()) {
            return refuse("an alias with types is not for plugins: cast the columns");
        }
        let visible = self.visible.last().map_or(&[][..], Vec::as_slice);
        for relation in columns::of_factor(self.policy, factor, visible) {
            self.dotted.relation(relation);
        }
        GO
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> Flow {
        match expr {
            Expr::Function(Function { name, uses_odbc_syntax: false, .. }) => self.call(name),
            Expr::Cast { data_type, .. } => cast(data_type),
            Expr::TypedString(typed) => cast(&typed.data_type),
            Expr::BinaryOp { op, .. } | Expr::AnyOp { compare_op: op, .. } | Expr::AllOp { compare_op: op, .. } => {
                match op {
                    BinaryOperator::Custom(_) | BinaryOperator::PGCustomBinaryOperator(_) => {
                        refuse(format!("the operator {op} is not one that plugins may use"))
                    }
                    _ => GO,
                }
            }
            Expr::UnaryOp {
                op: UnaryOperator::Plus | UnaryOperator::Minus | UnaryOperator::Not | UnaryOperator::BitwiseNot,
                ..
            } => GO,
            Expr::Identifier(ident) if ident.quote_style.is_none() && CALLED.contains(&folded(ident).as_str()) => {
                refuse(format!("{ident} is a function of Postgres's, and not one that plugins may use"))
            }
            Expr::CompoundIdentifier(idents) => {
                self.dotted.write(idents);
                GO
            }
            Expr::Identifier(_)
            | Expr::IsFalse(_)
            | Expr::IsNotFalse(_)
            | Expr::IsTrue(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotUnknown(_)
            | Expr::IsDistinctFrom(..)
            | Expr::IsNotDistinctFrom(..)
            | Expr::InList { .. }
            | Expr::InSubquery { .. }
            | Expr::Between { .. }
            | Expr::Like { .. }
            | Expr::ILike { .. }
            | Expr::AtTimeZone { .. }
            | Expr::Extract { .. }
            | Expr::Ceil { .. }
            | Expr::Floor { .. }
            | Expr::Position { .. }
            | Expr::Substring { .. }
            | Expr::Trim { .. }
            | Expr::Nested(_)
            | Expr::Value(_)
            | Expr::Case { .. }
            | Expr::Exists { .. }
            | Expr::Subquery(_)
            | Expr::Tuple(_)
            | Expr::Array(_)
            | Expr::Interval(_)
            | Expr::Wildcard(_)
            | Expr::QualifiedWildcard(..) => GO,
            other => refuse(format!("this is not something that plugins may write: {other}")),
        }
    }

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> Flow {
        match &value.value {
            Value::Number(..) | Value::SingleQuotedString(_) | Value::Boolean(_) | Value::Null => GO,
            Value::Placeholder(name) if name.strip_prefix('$').is_some_and(|n| n.parse::<u16>().is_ok()) => GO,
            other => refuse(format!("write values as $1, $2, … or in plain quotes, not like {other}")),
        }
    }

    /// Postgres has its catalogs, and much that plugins have no business with, under these names.
    fn pre_visit_ident(&mut self, ident: &Ident) -> Flow {
        if ident.value.len() > MAX_NAME_BYTES {
            return refuse(format!("a name has at most {MAX_NAME_BYTES} bytes: Postgres cuts off the rest"));
        }
        let name = ident.value.to_ascii_lowercase();
        if name.starts_with("pg_")
            || name.starts_with("lo_")
            || name == "information_schema"
            || name.starts_with("dblink")
        {
            return refuse(format!("{name} belongs to the database itself: plugins see their own tables only"));
        }
        GO
    }
}

fn cast(ty: &DataType) -> Flow {
    if plain(ty) {
        return GO;
    }
    refuse(format!("a cast to {ty} is not for plugins: cast to text, numbers, boolean, times, uuid, json or bytea"))
}
