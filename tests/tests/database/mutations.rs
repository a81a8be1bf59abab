//! Whether `psn db verify` would notice: each policy, ENABLE, FORCE and policy index is taken away in turn, and put back.
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use psn::capabilities::Deadline;
use psn::events::CheckStatus;
use psn::hub::verify::{Expect, VerifyReport, verify};
use psn::hub::{EnvFiles, ProjectDir, TlsRoots};
use psn::redact::Redactor;
use psn::secret::Secrets;
use sqlx::{AssertSqlSafe, PgConnection};

use super::{machine, owner};

/// Each row: what it is, how it is taken away, how it comes back. All from the catalog, so that a new table is covered by itself.
const MUTATIONS: &str = r"
WITH tables AS (
    SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS name
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p')
), policy_index AS (
    SELECT DISTINCT t.name, i.indexrelid, i.indexrelid::regclass::text AS index, k.oid AS con, k.conname, pg_get_constraintdef(k.oid) AS def,
           pg_get_indexdef(i.indexrelid) AS indexdef
    FROM tables t
    JOIN pg_policy p ON p.polrelid = t.oid AND 'psn_app'::regrole = ANY (p.polroles)
    JOIN pg_depend d ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid AND d.refobjid = t.oid AND d.refobjsubid > 0
    JOIN pg_index i ON i.indrelid = t.oid AND i.indkey[0] = d.refobjsubid AND i.indpred IS NULL
    LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = t.oid AND k.contype IN ('p', 'u')
)
SELECT 'policy ' || p.policyname || ' of ' || p.tablename,
       format('DROP POLICY %I ON %I.%I', p.policyname, p.schemaname, p.tablename),
       format('CREATE POLICY %I ON %I.%I AS %s FOR %s TO %s %s %s', p.policyname, p.schemaname, p.tablename, p.permissive, p.cmd,
              (SELECT string_agg(quote_ident(r), ', ') FROM unnest(p.roles) r), 'USING (' || p.qual || ')', 'WITH CHECK (' || p.with_check || ')')
FROM pg_policies p WHERE p.schemaname = 'public'
UNION ALL
SELECT 'ENABLE of ' || name, 'ALTER TABLE ' || name || ' DISABLE ROW LEVEL SECURITY', 'ALTER TABLE ' || name || ' ENABLE ROW LEVEL SECURITY' FROM tables
UNION ALL
SELECT 'FORCE of ' || name, 'ALTER TABLE ' || name || ' NO FORCE ROW LEVEL SECURITY', 'ALTER TABLE ' || name || ' FORCE ROW LEVEL SECURITY' FROM tables
UNION ALL
-- All that lead with the column go together: one of two is enough to filter by.
SELECT 'index ' || string_agg(l.index, ', ') || ' of ' || l.name,
       string_agg(CASE WHEN l.con IS NULL THEN 'DROP INDEX ' || l.index ELSE format('ALTER TABLE %s DROP CONSTRAINT %I CASCADE', l.name, l.conname) END, '; '),
       string_agg(CASE WHEN l.con IS NULL THEN l.indexdef ELSE format('ALTER TABLE %s ADD CONSTRAINT %I %s', l.name, l.conname, l.def) END, '; ')
         || coalesce((SELECT '; ' || string_agg(format('ALTER TABLE %s ADD CONSTRAINT %I %s', f.conrelid::regclass, f.conname, pg_get_constraintdef(f.oid)), '; ')
                      FROM pg_constraint f WHERE f.contype = 'f' AND f.conindid = ANY (array_agg(l.indexrelid))), '')
FROM policy_index l GROUP BY l.name
ORDER BY 1";

async fn run(db: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(db).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
}

fn red(report: &VerifyReport) -> Vec<&str> {
    report.checks.iter().filter(|c| c.status == CheckStatus::Fail).map(|c| c.check.as_str()).collect()
}

/// The table in the docs is what was tried here. `scripts/rls-table.sh` writes it.
fn documented(report: &VerifyReport) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/row-level-security.md");
    let table = behaviour_table(report);
    if std::env::var_os("PSN_WRITE_DOCS").is_some() {
        std::fs::write(&path, &table).expect("written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(kept, table, "docs/row-level-security.md is not what is tried: scripts/rls-table.sh");
}

/// The cases in order, and for each case and table what must come of it.
type Tried<'r> = (Vec<&'r str>, BTreeMap<(&'r str, &'r str), String>);

fn behaviour_table(report: &VerifyReport) -> String {
    let mut ways: BTreeMap<&str, Tried<'_>> = BTreeMap::new();
    let mut tables: Vec<&str> = Vec::new();
    for behaviour in &report.behaviours {
        let (cases, cells) = ways.entry(&behaviour.way).or_default();
        if !cases.contains(&behaviour.case) {
            cases.push(behaviour.case);
        }
        if !tables.contains(&behaviour.table.as_str()) {
            tables.push(&behaviour.table);
        }
        let expected = match behaviour.expected {
            Expect::Rows(n) => n.to_string(),
            Expect::Denied => "42501".to_owned(),
        };
        let cell = cells.entry((behaviour.case, &behaviour.table)).or_insert_with(|| expected.clone());
        assert_eq!(*cell, expected, "both users are treated alike: {behaviour:?}");
    }
    // Pooled and direct must come to the same; where there is no pooler, there is one of them.
    let app: Vec<_> = ["pooled", "direct"].iter().filter_map(|way| ways.remove(way)).collect();
    assert!(!app.is_empty() && app.iter().all(|way| *way == app[0]), "{:?}", report.behaviours);
    let mut text = String::from(
        "# Row-level security: what is tried, and what must come of it\n\n\
         Written by `scripts/rls-table.sh` from what `psn db verify` tries on psn's own tables; a test fails where it differs. A number is a count of rows, 42501 is Postgres' refusal, and an empty cell was not tried: there is no such case for the table, or no right to begin with.\n",
    );
    let mut section = |title: &str, (cases, cells): &Tried<'_>| {
        let columns: Vec<&&str> = tables.iter().filter(|table| cells.keys().any(|(_, of)| of == *table)).collect();
        let names: Vec<&str> = columns.iter().map(|table| **table).collect();
        text +=
            &format!("\n## {title}\n\n| statement | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
        for case in cases {
            let row: Vec<&str> =
                names.iter().map(|table| cells.get(&(*case, *table)).map_or("", String::as_str)).collect();
            text += &format!("| {case} | {} |\n", row.join(" | "));
        }
    };
    section("As `psn_app`, as each of two users, through the pooler and past it", &app[0]);
    for (way, found) in &ways {
        section(&format!("As `{way}`, what it was not granted"), found);
    }
    text
}

#[test]
fn taking_anything_away_turns_verify_red() {
    let m = machine();
    m.psn(&["run", "setup"]).exits(0);
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let project = ProjectDir::at(&m.project()).expect("a project");
        let secrets = Secrets::open(Box::new(EnvFiles::new(&project)), Arc::new(Redactor::new())).expect("secrets");
        let tls = TlsRoots::Pem(m.home().join("local-hub/tls/ca.pem"));
        let look = async || {
            let deadline = Deadline::after(Duration::from_secs(60));
            verify(&secrets, &tls, &["watchdog".to_owned()], deadline).await.expect("verify ends")
        };
        let before = look().await;
        assert_eq!(red(&before), Vec::<&str>::new(), "{:?}", before.checks);

        documented(&before);

        let mut db = owner(&m).await;
        let mutations: Vec<(String, String, String)> =
            sqlx::query_as(MUTATIONS).fetch_all(&mut db).await.expect("a list");
        let mut seen = [0; 4];
        let mut by_behaviour = 0;
        for (what, take, back) in &mutations {
            run(&mut db, take).await;
            let report = look().await;
            let red = red(&report);
            assert!(!red.is_empty(), "verify does not notice that {what} is gone");
            by_behaviour += usize::from(red.contains(&"rls.behaviour"));
            run(&mut db, back).await;
            let kind = ["policy", "ENABLE", "FORCE", "index"].iter().position(|k| what.starts_with(k)).expect("a kind");
            seen[kind] += 1;
        }
        let after = look().await;
        assert_eq!(red(&after), Vec::<&str>::new(), "all is as it was");
        assert_eq!(after.behaviours.len(), before.behaviours.len());
        eprintln!(
            "{} mutations, all noticed ({by_behaviour} by trying): {} policies, {} ENABLE, {} FORCE, {} indexes",
            mutations.len(),
            seen[0],
            seen[1],
            seen[2],
            seen[3]
        );
        assert!(seen[0] >= 20 && seen[1..].iter().all(|n| *n >= 5), "{seen:?}");
        assert!(by_behaviour >= 20, "{by_behaviour}");
    });
    // And through the public path.
    runtime.block_on(async { run(&mut owner(&m).await, "DROP POLICY posts_select ON public.posts").await });
    let answer = m.psn(&["db", "verify"]).exits(1);
    assert_eq!(answer.error()["code"], "migrate.verify-failed");
    assert_eq!(m.psn(&["run", "migrate"]).exits(1).error()["code"], "migrate.catalog");
}
