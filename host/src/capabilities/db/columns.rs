//! Which columns the relations of a statement have, as far as the policy can know them. Postgres takes `a.b` for a call of the
//! function `b` where `a` has no column of that name, and `x.ts_stat` on a function's result runs `x` as a statement: so whatever is
//! written with a dot must be known to be a column.
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use sqlparser::ast::{
    Expr, FromTable, Ident, ObjectName, Query, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Statement,
    TableAlias, TableFactor, TableObject, TableWithJoins, UpdateTableFromKind,
};

use super::policy::{folded, parts};

pub(super) type Columns = BTreeSet<String>;

/// What a `WITH` clause defines: a name and its columns.
pub(super) type Named = (String, Rc<Columns>);

/// The columns of a granted table that the manifest names.
pub(super) trait Tables {
    fn columns(&self, name: &ObjectName) -> Option<&Columns>;
}

/// The relations of one statement by the names they go by, and what is written with a dot.
#[derive(Default)]
pub(super) struct Dotted {
    relations: BTreeMap<String, Columns>,
    written: Vec<(String, String)>,
}

impl Dotted {
    /// Where two relations go by the same name, only what both have is certain to be a column.
    pub(super) fn relation(&mut self, (name, columns): (String, Columns)) {
        match self.relations.get_mut(&name) {
            Some(known) => known.retain(|c| columns.contains(c)),
            None => {
                self.relations.insert(name, columns);
            }
        }
    }

    pub(super) fn write(&mut self, idents: &[Ident]) {
        if let [.., relation, column] = idents {
            self.written.push((folded(relation), folded(column)));
        }
    }

    /// The first that is not known to be a column.
    pub(super) fn unknown(&self) -> Option<String> {
        let known = |(relation, column): &&(String, String)| {
            self.relations.get(relation).is_some_and(|columns| columns.contains(column))
        };
        self.written.iter().find(|w| !known(w)).map(|(relation, column)| format!("{relation}.{column}"))
    }
}

/// What one item of a FROM clause is called, and its columns.
pub(super) fn of_factor(tables: &impl Tables, factor: &TableFactor, visible: &[Named]) -> Vec<(String, Columns)> {
    let function = |name: String, alias: &Option<TableAlias>, own: Option<String>, ordinality: bool| {
        let mut columns = aliased(alias);
        // Without a list the column is called as the function says, which is the alias of an array's elements only.
        if columns.is_empty() {
            columns.extend(own);
        }
        if ordinality {
            columns.insert("ordinality".to_owned());
        }
        vec![(alias.as_ref().map_or(name, |a| folded(&a.name)), columns)]
    };
    match factor {
        TableFactor::Table { name, alias, args: None, .. } => {
            let Some((schema, table)) = parts(name) else { return Vec::new() };
            let with = visible.iter().rfind(|(n, _)| schema.is_none() && *n == table).map(|(_, c)| c.as_ref());
            let mut columns = with.or_else(|| tables.columns(name)).cloned().unwrap_or_default();
            columns.append(&mut aliased(alias));
            vec![(alias.as_ref().map_or(table, |a| folded(&a.name)), columns)]
        }
        TableFactor::Table { name, alias, args: Some(args), with_ordinality, .. } => {
            let Some((_, called)) = parts(name) else { return Vec::new() };
            let own = own_column(&called, args.args.len(), alias);
            function(called, alias, own, *with_ordinality)
        }
        TableFactor::Function { name, args, alias, with_ordinality, .. } => {
            let Some((_, called)) = parts(name) else { return Vec::new() };
            let own = own_column(&called, args.len(), alias);
            function(called, alias, own, *with_ordinality)
        }
        TableFactor::UNNEST { alias, array_exprs, with_ordinality, .. } => {
            let own = own_column("unnest", array_exprs.len(), alias);
            function("unnest".to_owned(), alias, own, *with_ordinality)
        }
        TableFactor::Derived { subquery, alias: Some(alias), .. } => {
            let mut columns = of_query(tables, subquery, visible);
            columns.extend(alias.columns.iter().map(|c| folded(&c.name)));
            vec![(folded(&alias.name), columns)]
        }
        TableFactor::NestedJoin { table_with_joins, alias } => {
            let mut inner = of_from(tables, std::slice::from_ref(table_with_joins), visible);
            if let Some(alias) = alias {
                let columns = inner.iter().flat_map(|(_, c)| c.iter().cloned()).collect();
                inner.push((folded(&alias.name), columns));
            }
            inner
        }
        _ => Vec::new(),
    }
}

/// What the one column of a function's result is called where no list of columns says it.
fn own_column(function: &str, arguments: usize, alias: &Option<TableAlias>) -> Option<String> {
    match function {
        "unnest" if arguments == 1 => Some(alias.as_ref().map_or_else(|| function.to_owned(), |a| folded(&a.name))),
        "jsonb_array_elements" | "jsonb_array_elements_text" => Some("value".to_owned()),
        _ => None,
    }
}

fn aliased(alias: &Option<TableAlias>) -> Columns {
    alias.iter().flat_map(|a| &a.columns).map(|c| folded(&c.name)).collect()
}

fn of_from(tables: &impl Tables, from: &[TableWithJoins], visible: &[Named]) -> Vec<(String, Columns)> {
    from.iter()
        .flat_map(|t| std::iter::once(&t.relation).chain(t.joins.iter().map(|j| &j.relation)))
        .flat_map(|factor| of_factor(tables, factor, visible))
        .collect()
}

/// The names of a query's columns, without those that only Postgres could tell.
pub(super) fn of_query(tables: &impl Tables, query: &Query, outer: &[Named]) -> Columns {
    let mut visible = outer.to_vec();
    for cte in query.with.iter().flat_map(|w| &w.cte_tables) {
        visible.push(of_cte(tables, &cte.alias, &cte.query, &visible));
    }
    of_body(tables, &query.body, &visible)
}

pub(super) fn of_cte(tables: &impl Tables, alias: &TableAlias, query: &Query, visible: &[Named]) -> Named {
    let mut columns = of_query(tables, query, visible);
    columns.extend(alias.columns.iter().map(|c| folded(&c.name)));
    (folded(&alias.name), Rc::new(columns))
}

fn of_body(tables: &impl Tables, body: &SetExpr, visible: &[Named]) -> Columns {
    match body {
        SetExpr::Select(select) => items(&select.projection, &of_from(tables, &select.from, visible)),
        SetExpr::Query(query) => of_query(tables, query, visible),
        SetExpr::SetOperation { left, .. } => of_body(tables, left, visible),
        SetExpr::Values(values) => {
            let width = values.rows.first().map_or(0, |row| row.content.len());
            (1..=width).map(|n| format!("column{n}")).collect()
        }
        SetExpr::Insert(statement) | SetExpr::Update(statement) | SetExpr::Delete(statement) => {
            returned(tables, statement, visible)
        }
        _ => Columns::new(),
    }
}

fn returned(tables: &impl Tables, statement: &Statement, visible: &[Named]) -> Columns {
    let (relations, returning) = match statement {
        Statement::Insert(insert) => (target(tables, &insert.table, None), &insert.returning),
        Statement::Update(update) => {
            let mut relations = of_factor(tables, &update.table.relation, visible);
            if let Some(UpdateTableFromKind::BeforeSet(from) | UpdateTableFromKind::AfterSet(from)) = &update.from {
                relations.append(&mut of_from(tables, from, visible));
            }
            (relations, &update.returning)
        }
        Statement::Delete(delete) => {
            let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
            let using = delete.using.as_deref().unwrap_or_default();
            let relations = [of_from(tables, from, visible), of_from(tables, using, visible)].concat();
            (relations, &delete.returning)
        }
        _ => return Columns::new(),
    };
    items(returning.as_deref().unwrap_or_default(), &relations)
}

/// The table of an INSERT, under its own name or `alias`.
pub(super) fn target(tables: &impl Tables, table: &TableObject, alias: Option<&Ident>) -> Vec<(String, Columns)> {
    let TableObject::TableName(name) = table else { return Vec::new() };
    let columns = tables.columns(name).cloned().unwrap_or_default();
    parts(name).map(|(_, table)| (alias.map_or(table, folded), columns)).into_iter().collect()
}

fn items(items: &[SelectItem], relations: &[(String, Columns)]) -> Columns {
    let mut columns = Columns::new();
    for item in items {
        match item {
            SelectItem::UnnamedExpr(expr) => columns.extend(name_of(expr)),
            SelectItem::ExprWithAlias { alias, .. } => {
                columns.insert(folded(alias));
            }
            SelectItem::Wildcard(_) => columns.extend(relations.iter().flat_map(|(_, c)| c.iter().cloned())),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                let Some((_, relation)) = parts(name) else { continue };
                let of_it = relations.iter().filter(|(n, _)| *n == relation);
                columns.extend(of_it.flat_map(|(_, c)| c.iter().cloned()));
            }
            _ => {}
        }
    }
    columns
}

/// What Postgres calls a column that has no alias, in the cases that are plain.
fn name_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(name) => Some(folded(name)),
        Expr::CompoundIdentifier(names) => names.last().map(folded),
        Expr::Function(function) => parts(&function.name).map(|(_, name)| name),
        Expr::Cast { expr, .. } | Expr::Nested(expr) => name_of(expr),
        _ => None,
    }
}
