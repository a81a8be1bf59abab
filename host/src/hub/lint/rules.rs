//! The rules. Each looks at statements alone; what needs a database is `psn db verify`'s.
use std::collections::{BTreeMap, BTreeSet};

use super::statements::Statement;

pub(super) struct Finding {
    pub(super) line: u64,
    pub(super) rule: &'static str,
    pub(super) message: String,
    /// What a migration must not be applied with; else a warning.
    pub(super) required: bool,
}

/// What is known of one new table.
#[derive(Default)]
struct NewTable {
    line: u64,
    enabled: bool,
    forced: bool,
    /// `SELECT`, … with a policy.
    policies: BTreeSet<String>,
    /// Granted to psn_app.
    granted: BTreeSet<String>,
    filters: BTreeSet<String>,
    /// First columns of its indexes.
    indexed: BTreeSet<String>,
    allowed: Vec<String>,
}

const COMMANDS: [&str; 4] = ["SELECT", "INSERT", "UPDATE", "DELETE"];

/// All findings of one file.
pub(super) fn check(statements: &[Statement]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let tables = new_tables(statements);
    for (name, table) in &tables {
        row_level_security(name, table, &mut findings);
    }
    for statement in statements {
        let mut add = |rule: &'static str, required: bool, message: String| {
            if !statement.allowed.iter().any(|a| a == rule) {
                findings.push(Finding { line: statement.line, rule, message, required });
            }
        };
        security(statement, &mut add);
        locks(statement, &tables, &mut add);
    }
    findings.sort_by_key(|f| f.line);
    findings
}

fn new_tables(statements: &[Statement]) -> BTreeMap<String, NewTable> {
    let mut tables: BTreeMap<String, NewTable> = BTreeMap::new();
    for s in statements.iter().filter(|s| s.starts(&["CREATE", "TABLE"])) {
        let Some(name) = s.table_at(2) else { continue };
        let table = NewTable { line: s.line, indexed: keys(s), allowed: s.allowed.clone(), ..NewTable::default() };
        tables.insert(name, table);
    }
    for s in statements {
        if s.starts(&["ALTER", "TABLE"]) {
            if let Some(table) = s.table_at(2).and_then(|n| tables.get_mut(&n)) {
                table.enabled |= s.has(&["ENABLE", "ROW", "LEVEL", "SECURITY"]);
                table.forced |= s
                    .words
                    .windows(4)
                    .enumerate()
                    .any(|(i, w)| w == ["FORCE", "ROW", "LEVEL", "SECURITY"] && (i == 0 || s.words[i - 1] != "NO"));
                table.indexed.extend(keys(s));
            }
        } else if s.starts(&["CREATE", "POLICY"]) {
            let Some(table) = s.find(&["ON"]).and_then(|at| s.table_at(at + 1)).and_then(|n| tables.get_mut(&n)) else {
                continue;
            };
            let command = s.find(&["FOR"]).and_then(|at| s.words.get(at + 1)).map_or("ALL", String::as_str);
            table.policies.insert(command.to_owned());
            table.filters.extend(compared(s));
        } else if s.starts(&["GRANT"]) && s.has(&["TO", "PSN_APP"]) {
            let Some(on) = s.find(&["ON"]) else { continue };
            let rights = s.words[1..on].iter().filter(|w| COMMANDS.contains(&w.as_str())).cloned();
            let rights: BTreeSet<String> = rights.collect();
            for at in on..s.words.len() {
                if let Some(table) = s.table_at(at).and_then(|n| tables.get_mut(&n)) {
                    table.granted.extend(rights.iter().cloned());
                }
            }
        } else if s.words.iter().take(3).any(|w| w == "INDEX")
            && let Some(on) = s.find(&["ON"])
            && let Some(table) = s.table_at(on + 1).and_then(|n| tables.get_mut(&n))
            && let Some(open) = s.words[on..].iter().position(|w| w == "(")
            && !s.has(&["WHERE"])
        {
            table.indexed.extend(s.words.get(on + open + 1).map(|w| w.to_lowercase()));
        }
    }
    tables
}

/// First columns of the keys that a CREATE or ALTER TABLE makes: `UNIQUE (a, b)`, and `a uuid PRIMARY KEY`.
fn keys(s: &Statement) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut column = None;
    let mut depth = 0;
    for (i, word) in s.words.iter().enumerate() {
        let next = |n: usize| s.words.get(i + n).map(String::as_str);
        match word.as_str() {
            "(" => {
                depth += 1;
                if depth == 1 {
                    column = next(1).map(str::to_lowercase);
                }
            }
            ")" => depth -= 1,
            "," if depth == 1 => column = next(1).map(str::to_lowercase),
            "PRIMARY" if next(1) == Some("KEY") => {
                let named = if next(2) == Some("(") { next(3).map(str::to_lowercase) } else { column.clone() };
                found.extend(named);
            }
            "UNIQUE" => {
                let named = if next(1) == Some("(") { next(2).map(str::to_lowercase) } else { column.clone() };
                found.extend(named);
            }
            _ => {}
        }
    }
    found
}

/// Columns that a policy compares with a setting.
fn compared(s: &Statement) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (i, word) in s.words.iter().enumerate() {
        if word == "=" && i > 0 && s.words[i..].iter().take(8).any(|w| w == "CURRENT_SETTING") {
            found.insert(s.words[i - 1].to_lowercase());
        }
    }
    found
}

fn row_level_security(name: &str, table: &NewTable, findings: &mut Vec<Finding>) {
    let mut add = |rule: &'static str, message: String| {
        if !table.allowed.iter().any(|a| a == rule) {
            findings.push(Finding { line: table.line, rule, message, required: true });
        }
    };
    if !table.enabled {
        add("rls-not-enabled", format!("{name}: the migration does not enable row-level security"));
    }
    if !table.forced {
        add("rls-not-forced", format!("{name}: the migration does not force row-level security on the owner"));
    }
    for command in table.granted.iter().filter(|c| !table.policies.contains(*c)) {
        add("rls-no-policy", format!("{name}: psn_app may {command}, and no policy FOR {command} says which rows"));
    }
    for column in table.filters.iter().filter(|c| !table.indexed.contains(*c)) {
        add("rls-no-index", format!("{name}: no index begins with {column}, which the policies filter by"));
    }
}

/// What widens rights or goes past row-level security.
fn security(s: &Statement, add: &mut impl FnMut(&'static str, bool, String)) {
    if s.has(&["SECURITY", "DEFINER"]) && !s.has(&["SET", "SEARCH_PATH"]) {
        add(
            "definer-search-path",
            true,
            "a SECURITY DEFINER function without SET search_path runs whatever its caller puts in its way".to_owned(),
        );
    }
    if s.words.windows(4).enumerate().any(|(i, w)| {
        w == ["NO", "FORCE", "ROW", "LEVEL"]
            || (w[..3] == ["DISABLE", "ROW", "LEVEL"] && s.words.get(i + 3).is_some_and(|w| w == "SECURITY"))
    }) {
        add("rls-switched-off", true, "row-level security is switched off".to_owned());
    }
    let policy = s.starts(&["CREATE", "POLICY"]) || s.starts(&["ALTER", "POLICY"]);
    if policy && s.words.iter().enumerate().any(|(i, w)| w == "CURRENT_SETTING" && !is_wrapped(&s.words, i)) {
        add(
            "raw-current-setting",
            true,
            "write (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid): once a statement, and no error where no user is set".to_owned(),
        );
    }
    if (s.starts(&["CREATE", "VIEW"]) || s.starts(&["CREATE", "OR", "REPLACE", "VIEW"]))
        && !s.has(&["SECURITY_INVOKER"])
    {
        add(
            "view-as-owner",
            true,
            "a view without WITH (security_invoker = true) shows what its owner sees".to_owned(),
        );
    }
    if s.starts(&["CREATE", "MATERIALIZED", "VIEW"]) {
        add("view-as-owner", true, "a materialized view has no row-level security".to_owned());
    }
    if s.starts(&["GRANT"]) {
        let rights: Vec<&String> = s.words.iter().take_while(|w| *w != "ON").collect();
        if rights.iter().any(|w| matches!(w.as_str(), "TRUNCATE" | "REFERENCES" | "ALL")) {
            add(
                "grant-too-wide",
                true,
                "TRUNCATE and REFERENCES go past row-level security, and ALL has both".to_owned(),
            );
        }
        if s.has(&["TO", "PUBLIC"]) {
            add("grant-too-wide", true, "a right of PUBLIC is every role's".to_owned());
        }
    }
    if (s.starts(&["CREATE", "ROLE"]) || s.starts(&["ALTER", "ROLE"]) || s.starts(&["CREATE", "USER"]))
        && s.words.iter().any(|w| w == "BYPASSRLS" || w == "SUPERUSER")
    {
        add("role-too-powerful", true, "a role with BYPASSRLS or SUPERUSER sees everyone's rows".to_owned());
    }
}

/// `SELECT nullif(current_setting('…', true), …`
fn is_wrapped(words: &[String], at: usize) -> bool {
    let before = at.checked_sub(3).map(|from| &words[from..at]);
    let inside = before.is_some_and(|b| b[0] == "SELECT" && b[1] == "NULLIF" && b[2] == "(");
    let missing_ok = words[at..].iter().take(6).any(|w| w == "TRUE");
    inside && missing_ok
}

/// What holds everyone else up while it runs, or takes something away that a running program needs.
fn locks(s: &Statement, new: &BTreeMap<String, NewTable>, add: &mut impl FnMut(&'static str, bool, String)) {
    let is_new = |at: usize| s.table_at(at).is_some_and(|n| new.contains_key(&n));
    if s.starts(&["CREATE", "INDEX"]) || s.starts(&["CREATE", "UNIQUE", "INDEX"]) {
        if !s.has(&["CONCURRENTLY"]) && !s.find(&["ON"]).is_some_and(|on| is_new(on + 1)) {
            add(
                "index-not-concurrent",
                false,
                "CREATE INDEX stops all writing while it runs; CREATE INDEX CONCURRENTLY in a file of its own that begins with -- no-transaction does not".to_owned(),
            );
        }
        return;
    }
    let heavy = [
        (&["VACUUM", "FULL"][..], "VACUUM FULL locks the table against everyone"),
        (&["LOCK", "TABLE"][..], "LOCK TABLE holds everyone else up until the migration ends"),
        (&["CLUSTER"][..], "CLUSTER locks the table against everyone"),
        (&["DROP", "TABLE"][..], "DROP TABLE takes away what a running program may still use, and its rows for good"),
        (&["TRUNCATE"][..], "TRUNCATE deletes all rows of everyone"),
    ];
    for (words, message) in heavy {
        if s.starts(words) {
            add("lock-heavy", false, message.to_owned());
        }
    }
    if !s.starts(&["ALTER", "TABLE"]) || is_new(2) {
        return;
    }
    let adds = s.has(&["ADD", "CONSTRAINT"]) || s.has(&["ADD", "CHECK"]) || s.has(&["ADD", "FOREIGN", "KEY"]);
    if adds && (s.has(&["CHECK"]) || s.has(&["FOREIGN", "KEY"])) && !s.has(&["NOT", "VALID"]) {
        add(
            "constraint-validated",
            false,
            "the constraint reads the whole table under a lock; add it NOT VALID, and VALIDATE CONSTRAINT in the next migration".to_owned(),
        );
    }
    if s.has(&["TYPE"]) && s.has(&["ALTER", "COLUMN"]) {
        add("lock-heavy", false, "a change of type can write the whole table anew under a lock".to_owned());
    }
    if s.has(&["SET", "NOT", "NULL"]) {
        add("lock-heavy", false, "SET NOT NULL reads the whole table under a lock; a CHECK (… IS NOT NULL) NOT VALID, validated later, does not".to_owned());
    }
    if s.has(&["DROP", "COLUMN"]) || s.has(&["RENAME"]) {
        add("breaks-programs", false, "a running program may still use what is dropped or renamed".to_owned());
    }
    if s.has(&["ADD", "COLUMN"]) && s.has(&["NOT", "NULL"]) && !s.has(&["DEFAULT"]) {
        add("lock-heavy", true, "a NOT NULL column without a default fails where the table has a row".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::super::statements::statements;
    use super::*;

    fn rules(sql: &str) -> Vec<&'static str> {
        check(&statements(sql).unwrap()).iter().map(|f| f.rule).collect()
    }

    const SOUND: &str = include_str!("../table.sql");

    #[test]
    fn what_psn_db_new_writes_is_clean_and_every_part_of_it_is_needed() {
        let sound = SOUND.replace("{table}", "notes");
        assert_eq!(rules(&sound), Vec::<&str>::new());
        for (without, rule) in [
            ("ALTER TABLE public.notes ENABLE ROW LEVEL SECURITY;", "rls-not-enabled"),
            ("ALTER TABLE public.notes FORCE ROW LEVEL SECURITY;", "rls-not-forced"),
            (
                ",\n    -- Leads with the column that the policies filter by: it is their index. And other tables can refer to a row of the same user only:\n    -- FOREIGN KEY (user_id, notes_id) REFERENCES public.notes (user_id, id)\n    UNIQUE (user_id, id)",
                "rls-no-index",
            ),
            ("FOR DELETE", "rls-no-policy"),
        ] {
            assert!(sound.contains(without), "{without}");
            assert!(rules(&sound.replace(without, "")).contains(&rule), "{rule}");
        }
    }

    #[test]
    fn psns_own_migrations_are_clean() {
        for migration in crate::hub::Migrations::embedded().iter().filter(|m| m.version <= 4) {
            // 0002 makes the tables, 0003 secures them: one file to the rules.
            if migration.version == 2 {
                continue;
            }
            let found: Vec<_> = check(&statements(migration.sql.as_str()).unwrap());
            let found: Vec<String> = found.iter().map(|f| format!("{} {}", f.rule, f.message)).collect();
            assert_eq!(found, Vec::<String>::new(), "{}", migration.description);
        }
    }

    #[test]
    fn each_mistake_has_its_rule() {
        for (sql, rule) in [
            ("CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER AS $$SELECT 1$$", "definer-search-path"),
            (
                "CREATE POLICY p ON posts USING (user_id = current_setting('app.current_user_id')::uuid)",
                "raw-current-setting",
            ),
            (
                "CREATE POLICY p ON posts USING (user_id = (SELECT current_setting('app.x', true)::uuid))",
                "raw-current-setting",
            ),
            ("ALTER TABLE posts DISABLE ROW LEVEL SECURITY", "rls-switched-off"),
            ("ALTER TABLE posts NO FORCE ROW LEVEL SECURITY", "rls-switched-off"),
            ("CREATE VIEW v AS SELECT * FROM posts", "view-as-owner"),
            ("GRANT ALL ON posts TO psn_app", "grant-too-wide"),
            ("GRANT SELECT ON posts TO PUBLIC", "grant-too-wide"),
            ("ALTER ROLE psn_app BYPASSRLS", "role-too-powerful"),
            ("CREATE INDEX i ON posts (kind)", "index-not-concurrent"),
            ("ALTER TABLE posts ADD CONSTRAINT c CHECK (kind <> '')", "constraint-validated"),
            ("ALTER TABLE posts ALTER COLUMN kind TYPE varchar(10)", "lock-heavy"),
            ("ALTER TABLE posts ALTER COLUMN run_id SET NOT NULL", "lock-heavy"),
            ("ALTER TABLE posts ADD COLUMN x int NOT NULL", "lock-heavy"),
            ("ALTER TABLE posts DROP COLUMN kind", "breaks-programs"),
            ("DROP TABLE posts", "lock-heavy"),
        ] {
            assert_eq!(rules(sql), [rule], "{sql}");
            assert_eq!(rules(&format!("-- psn:allow {rule} it is meant\n{sql}")), Vec::<&str>::new(), "{sql}");
        }
        for fine in [
            "CREATE POLICY p ON posts USING (user_id = (SELECT nullif(current_setting('app.current_user_id', true), '')::uuid))",
            "CREATE INDEX CONCURRENTLY i ON posts (kind)",
            "ALTER TABLE posts ADD CONSTRAINT c CHECK (kind <> '') NOT VALID",
            "ALTER TABLE posts ADD COLUMN x int",
            "CREATE VIEW v WITH (security_invoker = true) AS SELECT 1",
        ] {
            assert_eq!(rules(fine), Vec::<&str>::new(), "{fine}");
        }
    }
}
