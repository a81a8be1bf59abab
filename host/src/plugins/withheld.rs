//! What an operator's policy takes away from a manifest's wishes: kept beside what is left, so that a denial can name the line of
//! the policy instead of one that the manifest has already.
use std::fmt;

/// The operator's policy, in the project's folder.
pub const POLICY_TOML: &str = "config/policy.toml";

/// One wish that is not granted, and what in the policy would have to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withheld {
    pub wish: Wish,
    /// For example `[plugin."*"] tools = ["trigger"]`.
    pub line: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    Service(String),
    /// As the manifest writes it.
    Route {
        service: String,
        route: String,
    },
    /// `select`, `insert`, `update` with columns; `delete`, `execute` without. The table as the manifest writes it.
    Table {
        table: String,
        right: &'static str,
        columns: Vec<String>,
    },
    Tool(String),
    /// A limit's name in the manifest, and what it is lowered to.
    Limit {
        field: &'static str,
        to: String,
    },
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wish::Service(service) => write!(f, "http {service}"),
            Wish::Route { service, route } => write!(f, "http {service} {route}"),
            Wish::Table { table, right, columns } if columns.is_empty() => write!(f, "db {table} {right}"),
            Wish::Table { table, right, columns } => write!(f, "db {table} {right} {}", columns.join(", ")),
            Wish::Tool(tool) => write!(f, "tool {tool}"),
            Wish::Limit { field, to } => write!(f, "limit {field} above {to}"),
        }
    }
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (to allow it, in {POLICY_TOML}: {})", self.wish, self.line)
    }
}
