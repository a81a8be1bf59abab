//! What SQL alone promises, asserted from the catalog: after every migrate, and in `validate`. Each question's rows are what is wrong.
use sqlx::{AssertSqlSafe, PgConnection, Row as _};

use crate::events::{Check, CheckStatus};

/// A question to the catalog. The rows of its answer have one text column: what is wrong, in words.
struct Question {
    check: &'static str,
    pass: &'static str,
    sql: &'static str,
}

/// People's data, and psn's own records of it. What migrations ran is for their owner alone: no role has a right to it.
macro_rules! our_tables {
    () => {
        "(c.relnamespace = 'public'::regnamespace OR (c.relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'psn') AND c.relname <> 'migrations'))"
    };
}

/// The roles that psn makes: none may be able to widen its own rights, or to see past row-level security.
macro_rules! our_roles {
    () => {
        "(r.rolname = 'psn_app' OR r.rolname LIKE 'psn\\_plugin\\_%')"
    };
}

/// The column of table `$oid` that a policy of psn_app compares with the user, as the policy is written back: `(user_id = ( SELECT …`.
macro_rules! tenant_of {
    ($oid:literal) => {
        concat!(
            "(SELECT a.attnum FROM pg_catalog.pg_policy p
              JOIN pg_catalog.pg_attribute a ON a.attrelid = p.polrelid AND a.attnum > 0 AND NOT a.attisdropped
              WHERE p.polrelid = ",
            $oid,
            " AND (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = 'psn_app') = ANY (p.polroles)
                AND position(format('(%I = ( SELECT ', a.attname)
                             IN concat(pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))) > 0
              LIMIT 1)"
        )
    };
}

const QUESTIONS: &[Question] = &[
    Question {
        check: "rls.enabled",
        pass: "Row-level security is on and forced on every table",
        sql: concat!(
            "SELECT format('%s: row-level security is %s', c.relname, CASE WHEN c.relrowsecurity THEN 'not forced' ELSE 'off' END)
              FROM pg_catalog.pg_class c
              WHERE ", our_tables!(), " AND c.relkind IN ('r', 'p') AND NOT (c.relrowsecurity AND c.relforcerowsecurity)
              ORDER BY 1"
        ),
    },
    Question {
        check: "rls.policies",
        pass: "Every right of psn's roles has a policy",
        // For psn_app one per command, so that each says what it allows. A plugin's right may be to some columns only.
        sql: concat!(
            "SELECT DISTINCT format('%s: %s may %s, and no policy says which rows', c.relname, r.rolname, g.privilege_type)
             FROM pg_catalog.pg_class c
             CROSS JOIN LATERAL (
                 SELECT t.grantee, t.privilege_type FROM pg_catalog.aclexplode(c.relacl) t
                 UNION
                 SELECT t.grantee, t.privilege_type FROM pg_catalog.pg_attribute a CROSS JOIN LATERAL pg_catalog.aclexplode(a.attacl) t
                 WHERE a.attrelid = c.oid) g
             JOIN pg_catalog.pg_roles r ON r.oid = g.grantee
             WHERE c.relkind IN ('r', 'p') AND ", our_roles!(), "
               AND g.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
               AND NOT EXISTS (
                   SELECT FROM pg_catalog.pg_policy p
                   WHERE p.polrelid = c.oid AND (g.grantee = ANY (p.polroles) OR 0 = ANY (p.polroles))
                     AND (p.polcmd = CASE g.privilege_type WHEN 'SELECT' THEN 'r'::\"char\" WHEN 'INSERT' THEN 'a' WHEN 'UPDATE' THEN 'w' ELSE 'd' END
                          OR (p.polcmd = '*' AND r.rolname <> 'psn_app')))
             ORDER BY 1"
        ),
    },
    Question {
        check: "rls.indexes",
        pass: "Every column that a policy of psn_app filters by leads an index",
        sql: "SELECT DISTINCT format('%s: no index begins with %s, which the policy %s filters by', c.relname, a.attname, p.polname)
              FROM pg_catalog.pg_policy p
              JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
              JOIN pg_catalog.pg_depend d
                ON d.classid = 'pg_catalog.pg_policy'::regclass AND d.objid = p.oid
               AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjid = c.oid AND d.refobjsubid > 0
              JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.refobjsubid
              WHERE (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = 'psn_app') = ANY (p.polroles)
                AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL AND i.indkey[0] = a.attnum)
              ORDER BY 1",
    },
    Question {
        check: "rls.tenant-keys",
        pass: "Every unique and every foreign key has the user in it, or a comment that says why not",
        // A unique key over all users tells one of them what another has; a reference without the user can lead to another's row. Random
        // and counted keys that nobody chooses tell nothing. Where it is meant: COMMENT ON CONSTRAINT … IS 'psn: …'.
        sql: concat!(
            "SELECT format('%s: %s %s', c.relname, k.conname, CASE k.contype WHEN 'f'
                        THEN 'refers to rows without naming their user' ELSE 'is unique over all users' END)
             FROM pg_catalog.pg_constraint k
             JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
             WHERE c.relnamespace = 'public'::regnamespace AND k.contype IN ('p', 'u', 'f')
               AND ", tenant_of!("c.oid"), " IS NOT NULL
               AND NOT ", tenant_of!("c.oid"), " = ANY (k.conkey)
               AND (k.contype <> 'f' OR ", tenant_of!("k.confrelid"), " IS NOT NULL)
               AND NOT (k.contype = 'p' AND cardinality(k.conkey) = 1 AND EXISTS (
                   SELECT FROM pg_catalog.pg_attribute a
                   WHERE a.attrelid = c.oid AND a.attnum = k.conkey[1]
                     AND (a.attidentity <> '' OR (a.atttypid = 'uuid'::regtype AND a.atthasdef))))
               AND coalesce(obj_description(k.oid, 'pg_constraint'), '') NOT LIKE 'psn: %'
             UNION ALL
             SELECT format('%s: the index %s is unique over all users', c.relname, i.indexrelid::regclass)
             FROM pg_catalog.pg_index i
             JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
             WHERE c.relnamespace = 'public'::regnamespace AND i.indisunique
               AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u'))
               AND ", tenant_of!("c.oid"), " IS NOT NULL
               AND NOT ", tenant_of!("c.oid"), " = ANY (i.indkey::smallint[])
               AND coalesce(obj_description(i.indexrelid, 'pg_class'), '') NOT LIKE 'psn: %'
             ORDER BY 1"
        ),
    },
    Question {
        check: "rls.recursion",
        pass: "No policy reads its own table",
        sql: "SELECT format('%s: the policy %s reads %1$s itself, which ends in infinite recursion', c.relname, p.polname)
              FROM pg_catalog.pg_policy p
              JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
              WHERE concat(p.polqual::text, p.polwithcheck::text) ~ format(':relid %s ', c.oid)
              ORDER BY 1",
    },
    Question {
        check: "rls.settings",
        pass: "Policies read the user once a statement, and see nothing where none is set",
        sql: "SELECT format('%s: the policy %s must read (SELECT nullif(current_setting(…, true), '''')…)', c.relname, p.polname)
              FROM pg_catalog.pg_policy p
              JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
              CROSS JOIN LATERAL (VALUES (pg_catalog.pg_get_expr(p.polqual, c.oid)), (pg_catalog.pg_get_expr(p.polwithcheck, c.oid))) e(text)
              WHERE regexp_replace(e.text,
                        '\\( SELECT \\(*NULLIF\\(current_setting\\(''[^'']+''::text, true\\), ''''::text\\)\\)*(::[a-z]+)?( AS \"?[a-z_]+\"?)?\\)', '', 'g')
                    LIKE '%current\\_setting(%'
              ORDER BY 1",
    },
    Question {
        check: "rls.views",
        pass: "No view looks past row-level security",
        sql: "SELECT format('%s: %s', c.relname, CASE c.relkind WHEN 'm' THEN 'a materialized view has no row-level security'
                                                 ELSE 'the view runs with the rights of its owner; it needs security_invoker = true' END)
              FROM pg_catalog.pg_class c
              WHERE c.relnamespace = 'public'::regnamespace
                AND (c.relkind = 'm' OR (c.relkind = 'v' AND NOT coalesce(c.reloptions && ARRAY['security_invoker=true', 'security_invoker=on', 'security_invoker=1', 'security_invoker=yes'], false)))
              ORDER BY 1",
    },
    Question {
        check: "roles.attributes",
        pass: "psn's roles have no attribute and no membership that widens them",
        sql: concat!(
            "SELECT format('%s: %s', r.rolname, CASE WHEN r.rolsuper THEN 'is a superuser' WHEN r.rolbypassrls THEN 'bypasses row-level security'
                                                    WHEN r.rolcreaterole THEN 'may make roles' WHEN r.rolcreatedb THEN 'may make databases'
                                                    WHEN r.rolreplication THEN 'may replicate' ELSE 'is a member of another role' END)
             FROM pg_catalog.pg_roles r
             WHERE ", our_roles!(), "
               AND (r.rolsuper OR r.rolbypassrls OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication
                    OR EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.member = r.oid))
             ORDER BY 1"
        ),
    },
    Question {
        check: "roles.present",
        pass: "The role of people's data is there",
        sql: "SELECT 'psn_app: there is no such role' WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'psn_app')",
    },
    Question {
        check: "roles.ownership",
        pass: "psn's roles own nothing",
        sql: concat!(
            "SELECT format('%s: owns %s', r.rolname, o.what)
             FROM pg_catalog.pg_roles r
             JOIN (SELECT relowner AS owner, format('the relation %s', oid::regclass) AS what FROM pg_catalog.pg_class
                   UNION ALL SELECT proowner, format('the function %s', oid::regprocedure) FROM pg_catalog.pg_proc
                   UNION ALL SELECT nspowner, format('the schema %s', nspname) FROM pg_catalog.pg_namespace
                   UNION ALL SELECT typowner, format('the type %s', oid::regtype) FROM pg_catalog.pg_type
                   UNION ALL SELECT datdba, format('the database %s', datname) FROM pg_catalog.pg_database) o ON o.owner = r.oid
             WHERE ", our_roles!(), "
             ORDER BY 1"
        ),
    },
    Question {
        check: "roles.grants",
        pass: "No one may empty a table, and the public has no rights",
        sql: concat!(
            "SELECT format('%s: %s may %s', c.relname, coalesce(r.rolname, 'everyone'), g.privilege_type)
             FROM pg_catalog.pg_class c
             CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) g
             LEFT JOIN pg_catalog.pg_roles r ON r.oid = g.grantee
             WHERE ", our_tables!(), "
               AND (g.grantee = 0 OR (", our_roles!(), " AND (g.privilege_type NOT IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE', 'USAGE') OR g.is_grantable)))
             UNION ALL
             SELECT format('schema public: %s may create in it', coalesce(r.rolname, 'everyone'))
             FROM pg_catalog.pg_namespace n
             CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) g
             LEFT JOIN pg_catalog.pg_roles r ON r.oid = g.grantee
             WHERE n.nspname = 'public' AND g.privilege_type = 'CREATE' AND (g.grantee = 0 OR ", our_roles!(), ")
             UNION ALL
             SELECT format('database: %s may make %s', coalesce(r.rolname, 'everyone'), CASE g.privilege_type WHEN 'TEMPORARY' THEN 'temporary tables' ELSE 'schemas' END)
             FROM pg_catalog.pg_database d
             CROSS JOIN LATERAL pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) g
             LEFT JOIN pg_catalog.pg_roles r ON r.oid = g.grantee
             WHERE d.datname = current_database() AND g.privilege_type IN ('TEMPORARY', 'CREATE') AND (g.grantee = 0 OR ", our_roles!(), ")
             ORDER BY 1"
        ),
    },
    Question {
        check: "functions.definer",
        pass: "No function lends its owner's rights without a fixed search_path",
        sql: "SELECT format('%s: SECURITY DEFINER without SET search_path', p.oid::regprocedure)
              FROM pg_catalog.pg_proc p
              JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
              WHERE p.prosecdef AND n.nspname IN ('public', 'psn')
                AND NOT EXISTS (SELECT FROM unnest(p.proconfig) s WHERE s LIKE 'search\\_path=%')
              ORDER BY 1",
    },
];

/// Answers one check per question. A question that cannot be asked is a check that fails: a hub is not sound because nobody could look.
pub async fn catalog_checks(connection: &mut PgConnection) -> Vec<Check> {
    let mut checks = Vec::new();
    for question in QUESTIONS {
        let (status, message) = match ask(connection, question.sql).await {
            Ok(rows) if rows.is_empty() => (CheckStatus::Pass, question.pass.to_owned()),
            Ok(rows) => (CheckStatus::Fail, rows.join("; ")),
            Err(e) => (CheckStatus::Fail, format!("could not be checked: {e}")),
        };
        let fix = match status {
            CheckStatus::Pass => Vec::new(),
            _ => vec![
                "psn run setup".to_owned(),
                "Undo what was changed by hand in the database, or write a migration that puts it right".to_owned(),
            ],
        };
        checks.push(Check { check: question.check.to_owned(), step: None, status, message, fix, required: true });
    }
    checks
}

/// One round trip. The catalog's own names are not to be shadowed, and nothing stays behind on the connection.
async fn ask(connection: &mut PgConnection, question: &'static str) -> Result<Vec<String>, sqlx::Error> {
    let message = format!("BEGIN READ ONLY; SET LOCAL search_path = pg_catalog, pg_temp; {question}; COMMIT");
    let answer = sqlx::raw_sql(AssertSqlSafe(message)).fetch_all(&mut *connection).await;
    match answer {
        Ok(rows) => rows.iter().map(|row| row.try_get(0)).collect(),
        Err(e) => {
            // The transaction is still open and failed.
            sqlx::raw_sql("ROLLBACK").execute(connection).await?;
            Err(e)
        }
    }
}
