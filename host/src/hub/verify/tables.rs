//! The tables that are tried, read from the catalog: columns, keys, checks, rights, and the column that says whose a row is.
use serde::Deserialize;
use sqlx::PgConnection;

#[derive(Debug, Deserialize)]
pub(super) struct Table {
    pub(super) oid: i64,
    /// Quoted and qualified.
    pub(super) name: String,
    /// For people.
    pub(super) label: String,
    pub(super) rights: Rights,
    #[serde(default)]
    pub(super) columns: Vec<Column>,
    #[serde(default)]
    pub(super) keys: Vec<ForeignKey>,
    #[serde(default)]
    pub(super) primary: Vec<i16>,
    #[serde(default)]
    pub(super) checks: Vec<String>,
    /// Columns that a policy of psn_app compares with the user.
    #[serde(default)]
    pub(super) tenant: Vec<i16>,
    /// Columns that a policy of psn_app looks at.
    #[serde(default)]
    pub(super) filters: Vec<i16>,
}

/// psn_app's.
#[derive(Debug, Deserialize)]
pub(super) struct Rights {
    pub(super) select: bool,
    pub(super) insert: bool,
    pub(super) update: bool,
    pub(super) delete: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Column {
    pub(super) number: i16,
    /// Quoted.
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) sql_type: String,
    /// `pg_type.typcategory` of the type under a domain.
    pub(super) category: String,
    pub(super) base: String,
    pub(super) not_null: bool,
    /// Has a default or is an identity.
    pub(super) filled: bool,
    /// Cannot be given a value.
    pub(super) generated: bool,
    /// The first of an enum.
    pub(super) label: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ForeignKey {
    pub(super) columns: Vec<i16>,
    pub(super) table: i64,
    pub(super) target: Vec<i16>,
}

impl Table {
    pub(super) fn column(&self, number: i16) -> Option<&Column> {
        self.columns.iter().find(|c| c.number == number)
    }

    /// The column that says whose a row is: the one that is compared with the user, else the one reference that the policies look at.
    pub(super) fn owner(&self) -> Option<&Column> {
        let by_reference: Vec<i16> = self
            .filters
            .iter()
            .copied()
            .filter(|f| self.keys.iter().any(|k| k.columns.len() == 1 && k.columns[0] == *f))
            .collect();
        match (self.tenant.as_slice(), by_reference.as_slice()) {
            ([one], _) | ([], [one]) => self.column(*one),
            _ => None,
        }
    }

    /// Whether the owner column holds the user itself.
    pub(super) fn is_tenant(&self, number: i16) -> bool {
        self.tenant.contains(&number)
    }
}

const TABLES: &str = r"
SELECT jsonb_build_object(
    'oid', c.oid::bigint,
    'name', format('%I.%I', n.nspname, c.relname),
    'label', CASE n.nspname WHEN 'public' THEN c.relname::text ELSE n.nspname || '.' || c.relname END,
    'rights', jsonb_build_object('select', may.s, 'insert', may.i, 'update', may.u, 'delete', may.d),
    'columns', (
        SELECT jsonb_agg(jsonb_build_object(
            'number', a.attnum, 'name', quote_ident(a.attname), 'type', format_type(a.atttypid, a.atttypmod),
            'category', b.typcategory, 'base', b.typname, 'not_null', a.attnotnull OR t.typnotnull,
            'filled', a.atthasdef OR a.attidentity <> '', 'generated', a.attgenerated <> '' OR a.attidentity = 'a',
            'label', (SELECT e.enumlabel FROM pg_catalog.pg_enum e WHERE e.enumtypid = b.oid ORDER BY e.enumsortorder LIMIT 1)
        ) ORDER BY a.attnum)
        FROM pg_catalog.pg_attribute a
        JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
        JOIN pg_catalog.pg_type b ON b.oid = CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    'keys', coalesce((
        SELECT jsonb_agg(jsonb_build_object('columns', k.conkey, 'table', k.confrelid::bigint, 'target', k.confkey) ORDER BY k.conname)
        FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'f'), '[]'),
    'primary', coalesce((SELECT to_jsonb(k.conkey) FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'p'), '[]'),
    'checks', coalesce((
        SELECT jsonb_agg(pg_get_constraintdef(k.oid) ORDER BY k.conname)
        FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c'), '[]'),
    'tenant', coalesce((
        SELECT jsonb_agg(DISTINCT a.attnum)
        FROM pg_catalog.pg_policy p
        JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE p.polrelid = c.oid AND app.oid = ANY (p.polroles)
          AND position(format('(%I = ( SELECT ', a.attname)
                       IN concat(pg_get_expr(p.polqual, c.oid), pg_get_expr(p.polwithcheck, c.oid))) > 0), '[]'),
    'filters', coalesce((
        SELECT jsonb_agg(DISTINCT d.refobjsubid)
        FROM pg_catalog.pg_policy p
        JOIN pg_catalog.pg_depend d
          ON d.classid = 'pg_catalog.pg_policy'::regclass AND d.objid = p.oid
         AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = c.oid AND d.refobjsubid > 0
        WHERE p.polrelid = c.oid AND app.oid = ANY (p.polroles)), '[]'))
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
JOIN pg_catalog.pg_roles app ON app.rolname = 'psn_app'
CROSS JOIN LATERAL (
    SELECT u AND has_table_privilege(app.oid, c.oid, 'SELECT') AS s, u AND has_table_privilege(app.oid, c.oid, 'INSERT') AS i,
           u AND has_table_privilege(app.oid, c.oid, 'UPDATE') AS u, u AND has_table_privilege(app.oid, c.oid, 'DELETE') AS d
    FROM (VALUES (has_schema_privilege(app.oid, n.oid, 'USAGE'))) usage(u)) may
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'
  AND (n.nspname = 'public' OR may.s OR may.i OR may.u OR may.d)
ORDER BY n.nspname <> 'public', c.relname";

/// All tables that psn_app may touch, and all in public.
pub(super) async fn tables(owner: &mut PgConnection) -> Result<Vec<Table>, sqlx::Error> {
    let rows: Vec<serde_json::Value> = sqlx::query_scalar(TABLES).fetch_all(owner).await?;
    rows.into_iter().map(|row| serde_json::from_value(row).map_err(|e| sqlx::Error::Decode(e.into()))).collect()
}
