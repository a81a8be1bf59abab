//! What a plugin's role may do, compared with what its manifest says, table by table and column by column.
use std::collections::{BTreeMap, BTreeSet};

use sqlx::{PgConnection, Row as _};

use super::roles::{Change, RolesError, sql_error};
use crate::plugins::manifest::DbGrant;

/// One right. Ordered, so that the plan is the same each time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Right {
    /// `SELECT`, `INSERT` or `UPDATE` of one column.
    Column {
        table: String,
        privilege: String,
        column: String,
    },
    /// On the whole table.
    Table {
        table: String,
        privilege: String,
    },
    Function {
        signature: String,
    },
    Schema {
        schema: String,
        privilege: String,
    },
}

impl Right {
    fn words(&self) -> String {
        match self {
            Right::Column { table, privilege, column } => format!("{} {table}.{column}", privilege.to_lowercase()),
            Right::Table { table, privilege } => format!("{} {table}", privilege.to_lowercase()),
            Right::Function { signature } => format!("execute {signature}"),
            Right::Schema { schema, privilege } => format!("{} schema {schema}", privilege.to_lowercase()),
        }
    }

    /// `GRANT <this> TO`, `REVOKE <this> FROM`. All names come quoted from the catalog.
    fn sql(&self) -> String {
        match self {
            Right::Column { table, privilege, column } => format!("{privilege} ({column}) ON {table}"),
            Right::Table { table, privilege } => format!("{privilege} ON {table}"),
            Right::Function { signature } => format!("EXECUTE ON FUNCTION {signature}"),
            Right::Schema { schema, privilege } => format!("{privilege} ON SCHEMA {schema}"),
        }
    }
}

/// What has to change for `role` to have exactly the rights that the manifest of `plugin` asks for.
pub(super) async fn plan(
    owner: &mut PgConnection,
    plugin: &str,
    role: &str,
    asked: &BTreeMap<String, DbGrant>,
) -> Result<Vec<Change>, RolesError> {
    let wanted = wanted(owner, plugin, asked).await?;
    let held = held(owner, role).await?;
    let grant = wanted
        .rights
        .difference(&held)
        .map(|r| Change::new(format!("let {role} {}", r.words()), format!("GRANT {} TO {role}", r.sql())));
    let revoke = held
        .difference(&wanted.rights)
        .map(|r| Change::new(format!("stop {role} from: {}", r.words()), format!("REVOKE {} FROM {role}", r.sql())));
    // Rights are taken away first: at no point has the role more than the old and the new manifest together.
    let mut changes: Vec<Change> = revoke.chain(grant).collect();
    changes.append(&mut policies(owner, role, &wanted.commands).await?);
    Ok(changes)
}

struct Wanted {
    rights: BTreeSet<Right>,
    /// Table (quoted, qualified) → `SELECT`, `INSERT`, …
    commands: BTreeMap<String, BTreeSet<&'static str>>,
}

async fn wanted(
    owner: &mut PgConnection,
    plugin: &str,
    asked: &BTreeMap<String, DbGrant>,
) -> Result<Wanted, RolesError> {
    let mut wanted = Wanted { rights: BTreeSet::new(), commands: BTreeMap::new() };
    let schema = |schema: String| Right::Schema { schema, privilege: "USAGE".to_owned() };
    for (name, grant) in asked {
        let unknown = |asked: String| RolesError::Unknown { plugin: plugin.to_owned(), asked };
        if name.contains('(') {
            let row = find_function(owner, name).await?.ok_or_else(|| unknown(format!("the function {name}")))?;
            wanted.rights.insert(schema(row.0));
            if grant.execute {
                wanted.rights.insert(Right::Function { signature: row.1 });
            }
            continue;
        }
        let table = find_table(owner, name).await?.ok_or_else(|| unknown(format!("the table {name}")))?;
        wanted.rights.insert(schema(table.schema.clone()));
        let commands = wanted.commands.entry(table.name.clone()).or_default();
        for (privilege, columns) in [("SELECT", &grant.select), ("INSERT", &grant.insert), ("UPDATE", &grant.update)] {
            for column in columns {
                let quoted = table.columns.get(column).ok_or_else(|| unknown(format!("the column {name}.{column}")))?;
                wanted.rights.insert(Right::Column {
                    table: table.name.clone(),
                    privilege: privilege.to_owned(),
                    column: quoted.clone(),
                });
                commands.insert(privilege);
            }
        }
        if grant.delete {
            wanted.rights.insert(Right::Table { table: table.name.clone(), privilege: "DELETE".to_owned() });
            commands.insert("DELETE");
        }
    }
    // What every role of psn's has, so that its absence from the manifest is no reason to take it away.
    wanted.rights.insert(schema("public".to_owned()));
    Ok(wanted)
}

struct Table {
    /// Quoted.
    schema: String,
    /// Quoted and qualified.
    name: String,
    /// As in the manifest → quoted.
    columns: BTreeMap<String, String>,
}

/// `posts` or `schema.posts`, as the manifest has it. Names are compared as they are, never parsed as SQL. The catalogs, and psn's notes on its migrations, are out of reach.
async fn find_table(owner: &mut PgConnection, name: &str) -> Result<Option<Table>, RolesError> {
    let (schema, table) = name.split_once('.').unwrap_or(("public", name));
    let rows = sqlx::query(
        "SELECT pg_catalog.quote_ident(n.nspname), pg_catalog.format('%I.%I', n.nspname, c.relname), a.attname::text, pg_catalog.quote_ident(a.attname)
         FROM pg_catalog.pg_class c
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'f') AND c.relname <> '_sqlx_migrations'
           AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'",
    )
    .bind(schema)
    .bind(table)
    .fetch_all(owner)
    .await
    .map_err(sql_error("looking for the tables of a manifest"))?;
    let mut found: Option<Table> = None;
    for row in rows {
        let get = |i: usize| row.try_get::<String, _>(i).map_err(sql_error("looking for the tables of a manifest"));
        let (schema, name) = (get(0)?, get(1)?);
        found.get_or_insert_with(|| Table { schema, name, columns: BTreeMap::new() }).columns.insert(get(2)?, get(3)?);
    }
    Ok(found)
}

/// `psn.f(integer)`: the schema, and the signature as Postgres writes it. Only ordinary functions outside the catalogs.
async fn find_function(owner: &mut PgConnection, signature: &str) -> Result<Option<(String, String)>, RolesError> {
    let qualified = if signature.split('(').next().is_some_and(|n| n.contains('.')) {
        signature.to_owned()
    } else {
        format!("public.{signature}")
    };
    let row = sqlx::query(
        "SELECT pg_catalog.quote_ident(n.nspname), pg_catalog.format('%I.%I(%s)', n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid))
         FROM pg_catalog.pg_proc p
         JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
         WHERE p.oid = pg_catalog.to_regprocedure($1) AND p.prokind = 'f'
           AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'",
    )
    .bind(&qualified)
    .fetch_optional(owner)
    .await
    .map_err(sql_error("looking for the functions of a manifest"))?;
    row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .transpose()
        .map_err(sql_error("looking for the functions of a manifest"))
}

/// Every right that was given to the role itself, in this database.
async fn held(owner: &mut PgConnection, role: &str) -> Result<BTreeSet<Right>, RolesError> {
    let rows = sqlx::query(
        "WITH me AS (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1)
         SELECT 'column', pg_catalog.format('%I.%I', n.nspname, c.relname), g.privilege_type, pg_catalog.quote_ident(a.attname)
           FROM pg_catalog.pg_attribute a
           JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           CROSS JOIN LATERAL pg_catalog.aclexplode(a.attacl) g
          WHERE g.grantee = (SELECT oid FROM me)
         UNION ALL
         SELECT 'table', pg_catalog.format('%I.%I', n.nspname, c.relname), g.privilege_type, ''
           FROM pg_catalog.pg_class c
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) g
          WHERE g.grantee = (SELECT oid FROM me)
         UNION ALL
         SELECT 'function', pg_catalog.format('%I.%I(%s)', n.nspname, p.proname, pg_catalog.pg_get_function_identity_arguments(p.oid)), g.privilege_type, ''
           FROM pg_catalog.pg_proc p
           JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
           CROSS JOIN LATERAL pg_catalog.aclexplode(p.proacl) g
          WHERE g.grantee = (SELECT oid FROM me)
         UNION ALL
         SELECT 'schema', pg_catalog.quote_ident(n.nspname), g.privilege_type, ''
           FROM pg_catalog.pg_namespace n
           CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) g
          WHERE g.grantee = (SELECT oid FROM me)",
    )
    .bind(role)
    .fetch_all(owner)
    .await
    .map_err(sql_error("looking at what a role may do"))?;
    let mut held = BTreeSet::new();
    for row in rows {
        let get = |i: usize| row.try_get::<String, _>(i).map_err(sql_error("looking at what a role may do"));
        let (kind, name, privilege, column) = (get(0)?, get(1)?, get(2)?, get(3)?);
        held.insert(match kind.as_str() {
            "column" => Right::Column { table: name, privilege, column },
            "table" => Right::Table { table: name, privilege },
            "function" => Right::Function { signature: name },
            _ => Right::Schema { schema: name, privilege },
        });
    }
    Ok(held)
}

/// The user that a transaction works for (`as-user`), or null. The sub-select makes it one evaluation per statement.
const CURRENT_USER: &str =
    "(SELECT nullif(pg_catalog.current_setting('app.current_user_id', true), '')::pg_catalog.uuid)";

/// One table under row-level security, or not.
#[derive(Default)]
struct Secured {
    secured: bool,
    /// The column that says whose a row is, quoted.
    user: Option<String>,
    /// Of this role: name → quoted.
    policies: BTreeMap<String, String>,
}

/// Row-level security lets a role see nothing without a policy. For tables where a migration wrote policies for this role those are
/// the last word; elsewhere the grant is what a person agreed to, and a policy per granted command lets it reach all rows, or those of
/// one user while it works as that user.
async fn policies(
    owner: &mut PgConnection,
    role: &str,
    commands: &BTreeMap<String, BTreeSet<&'static str>>,
) -> Result<Vec<Change>, RolesError> {
    let rows = sqlx::query(
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), p.polname::text, c.relrowsecurity, pg_catalog.quote_ident(p.polname),
                (SELECT pg_catalog.quote_ident(a.attname) FROM pg_catalog.pg_attribute a
                  WHERE a.attrelid = c.oid AND NOT a.attisdropped AND a.atttypid = 'pg_catalog.uuid'::pg_catalog.regtype
                    AND a.attname = CASE WHEN c.oid = pg_catalog.to_regclass('public.users') THEN 'id' ELSE 'user_id' END)
         FROM pg_catalog.pg_class c
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         LEFT JOIN pg_catalog.pg_policy p
           ON p.polrelid = c.oid AND (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = $1) = ANY (p.polroles)
         WHERE c.relkind IN ('r', 'p') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'",
    )
    .bind(role)
    .fetch_all(owner)
    .await
    .map_err(sql_error("looking at the policies"))?;
    let first = |command: &str| format!("{role}_{}", command.to_lowercase());
    // The second form: the first knew no user.
    let generated = |command: &str| format!("{}_2", first(command));
    let is_generated =
        |name: &str| ["SELECT", "INSERT", "UPDATE", "DELETE"].iter().any(|c| generated(c) == name || first(c) == name);
    let mut tables: BTreeMap<String, Secured> = BTreeMap::new();
    for row in rows {
        let err = || sql_error("looking at the policies");
        let table = tables.entry(row.try_get(0).map_err(err())?).or_default();
        table.secured = row.try_get(2).map_err(err())?;
        table.user = row.try_get(4).map_err(err())?;
        if let Some(policy) = row.try_get::<Option<String>, _>(1).map_err(err())? {
            table.policies.insert(policy, row.try_get(3).map_err(err())?);
        }
    }
    let none = BTreeSet::new();
    let mut changes = Vec::new();
    for (table, Secured { secured, user, policies: present }) in tables {
        let by_hand = present.keys().any(|p| !is_generated(p));
        let needed = commands.get(&table).filter(|_| secured && !by_hand).unwrap_or(&none);
        for command in needed.iter().filter(|c| !present.contains_key(&generated(c))) {
            let rows = user.as_ref().map_or_else(
                || "true".to_owned(),
                |column| format!("{CURRENT_USER} IS NULL OR {column} = {CURRENT_USER}"),
            );
            let clause = match *command {
                "INSERT" => format!("WITH CHECK ({rows})"),
                "UPDATE" => format!("USING ({rows}) WITH CHECK ({rows})"),
                _ => format!("USING ({rows})"),
            };
            let sql = format!("CREATE POLICY {} ON {table} FOR {command} TO {role} {clause}", generated(command));
            changes
                .push(Change::new(format!("let {role} {} rows of every user in {table}", command.to_lowercase()), sql));
        }
        for (policy, quoted) in
            present.iter().filter(|(p, _)| is_generated(p) && !needed.iter().any(|c| generated(c) == **p))
        {
            changes.push(Change::new(
                format!("drop the policy {policy} of {table}"),
                format!("DROP POLICY {quoted} ON {table}"),
            ));
        }
    }
    Ok(changes)
}
