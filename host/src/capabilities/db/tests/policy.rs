use super::statements;
use crate::capabilities::db::fault::Fault;
use crate::capabilities::db::policy::Policy;
use crate::capabilities::testing::manifest;
use crate::plugins::manifest::Manifest;

/// Bytes. A build without optimisation needs several times what a release does.
const SMALL_STACK: usize = 1 << 20;

const GRANTS: &str = "[db]
\"posts\" = { select = [\"id\", \"content\"], update = [\"content\"] }
\"notes\" = { select = [\"id\"], insert = [\"id\"], update = [\"id\"], delete = true }
\"shop.orders\" = { select = [\"id\"] }
\"psn.touch(int)\" = { execute = true }
";

fn check(sql: &str) -> Result<String, Fault> {
    Policy::new(&manifest(GRANTS).db).check(sql)
}

#[test]
fn what_plugins_need_passes() {
    for sql in [
        "SELECT 1",
        "SELECT id, content FROM posts WHERE id = $1 ORDER BY id DESC LIMIT $2 OFFSET 3;",
        "SELECT p.id FROM public.posts AS p JOIN notes n ON n.id = p.id LEFT JOIN shop.orders o USING (id)",
        "SELECT count(*) FILTER (WHERE content IS NOT NULL), max(id) FROM posts GROUP BY content HAVING count(*) > 1",
        "SELECT row_number() OVER (PARTITION BY content ORDER BY id) FROM posts",
        "SELECT id FROM posts WHERE id = ANY($1) AND content LIKE 'a%' AND id IN (SELECT id FROM notes) FOR UPDATE SKIP LOCKED",
        "SELECT now() - $1 * interval '1 hour', CURRENT_TIMESTAMP, EXTRACT(EPOCH FROM now())::float8, $2::timestamptz, CAST($3 AS uuid[])",
        "SELECT content::jsonb -> 'a' ->> 'b', to_jsonb(content), jsonb_build_object('a', id) FROM posts",
        "SELECT CASE WHEN id IS NULL THEN coalesce(content, '') ELSE upper(content) END FROM posts",
        "SELECT x FROM unnest($1::text[]) AS x",
        "INSERT INTO notes (id) VALUES ($1), (DEFAULT) ON CONFLICT (id) DO UPDATE SET id = excluded.id RETURNING id",
        "INSERT INTO notes (id) SELECT id FROM posts ON CONFLICT DO NOTHING",
        "UPDATE posts SET content = trim(both ' ' from content) WHERE id = $1 RETURNING id",
        "DELETE FROM notes USING posts WHERE posts.id = notes.id RETURNING notes.id",
        "WITH a AS (SELECT id FROM posts), b AS (DELETE FROM notes RETURNING id) SELECT a.id FROM a UNION ALL SELECT id FROM b",
        "WITH a AS (SELECT 1 AS id) UPDATE notes SET id = a.id FROM a",
        "SELECT psn.touch(1)",
        "SELECT 'a'';b', 'back\\slash' -- a comment",
        "SELECT x.x, y.value, z.b FROM unnest($1::text[]) AS x, jsonb_array_elements($2::jsonb) AS y, unnest($3::text[]) AS z(b)",
        "SELECT unnest.unnest FROM unnest($1::text[])",
        "SELECT x.n, x.ordinality FROM unnest($1::text[]) WITH ORDINALITY AS x(n)",
        "SELECT a.id, a.n, b.content FROM (SELECT id, count(*) AS n FROM posts GROUP BY id) a JOIN (SELECT * FROM posts) b ON b.id = a.id",
        "WITH a AS (SELECT p.* FROM posts p), b(x) AS (SELECT content FROM a) SELECT a.content, b.x FROM a, b",
        "WITH gone AS (DELETE FROM notes RETURNING id) SELECT gone.id FROM gone",
        "SELECT v.column1 FROM (VALUES (1), (2)) v ORDER BY v.column1",
        "INSERT INTO notes AS n (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET id = n.id + excluded.id",
        "SELECT public.posts.id FROM posts WHERE posts.id IN (SELECT n.id FROM notes n WHERE n.id = posts.id)",
        "SELECT j.id, j.content FROM (posts p JOIN notes n USING (id)) AS j",
    ] {
        check(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
}

#[test]
fn everything_else_does_not() {
    for sql in [
        "",
        "SELEC 1",
        "SELECT 1; SELECT 2",
        "COMMIT",
        "ROLLBACK",
        "BEGIN",
        "SAVEPOINT a",
        "SET ROLE none",
        "RESET ROLE",
        "SET statement_timeout = 0",
        "DISCARD ALL",
        "DO $$ BEGIN END $$",
        "COPY posts TO STDOUT",
        "COPY posts TO PROGRAM 'id'",
        "ALTER ROLE me PASSWORD 'x'",
        "CREATE TABLE t (a int)",
        "CREATE TEMP TABLE t AS SELECT 1",
        "DROP TABLE posts",
        "TRUNCATE notes",
        "LISTEN a",
        "NOTIFY a",
        "LOCK TABLE posts",
        "PREPARE a AS SELECT 1",
        "EXECUTE a",
        "DECLARE c CURSOR FOR SELECT 1",
        "EXPLAIN ANALYZE SELECT 1",
        "SHOW ALL",
        "CALL psn.touch(1)",
        "VACUUM",
        "GRANT SELECT ON posts TO public",
        "MERGE INTO notes USING posts ON true WHEN MATCHED THEN DELETE",
        "TABLE users",
        "SELECT * INTO t FROM posts",
        "SELECT id FROM users",
        "SELECT id FROM posts, users",
        "SELECT id FROM private.posts",
        "SELECT id FROM hub.public.posts",
        "SELECT id FROM \"Posts\"",
        "SELECT (SELECT email FROM users)",
        "SELECT id FROM posts WHERE EXISTS (SELECT 1 FROM users)",
        "SELECT id FROM posts ORDER BY (SELECT email FROM users)",
        "WITH users AS (SELECT * FROM users) SELECT * FROM users",
        "SELECT * FROM (WITH users AS (SELECT 1) SELECT * FROM users) a, users",
        "WITH a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a",
        "WITH RECURSIVE a AS (SELECT 1 UNION ALL SELECT * FROM a) SELECT * FROM a",
        "WITH x AS (DELETE FROM posts RETURNING id) SELECT id FROM x",
        "INSERT INTO posts (id) VALUES (1)",
        "INSERT INTO notes (id) SELECT id FROM users",
        "INSERT INTO notes (id) VALUES ((SELECT 1 FROM users)) ON CONFLICT (id) DO UPDATE SET id = (SELECT 1 FROM users)",
        "UPDATE \"shop\".orders SET id = 1",
        "UPDATE notes SET id = u.id FROM users u",
        "UPDATE notes SET id = 1 RETURNING (SELECT email FROM users)",
        "DELETE FROM posts",
        "DELETE FROM notes USING users",
        "SELECT pg_sleep(10)",
        "SELECT PG_SLEEP(10)",
        "SELECT \"pg_sleep\"(10)",
        "SELECT pg_catalog.pg_sleep(10)",
        "SELECT pg_catalog.now()",
        "SELECT set_config('role', 'none', false)",
        "SELECT current_setting('app.current_user_id')",
        "SELECT * FROM set_config('role', 'none', false)",
        "SELECT * FROM LATERAL set_config('role', 'none', false)",
        "SELECT * FROM ROWS FROM (set_config('role', 'none', false))",
        "SELECT lo_import('/etc/passwd')",
        "SELECT dblink('host=evil', 'select 1')",
        "SELECT query_to_xml('select 1', true, true, '')",
        "SELECT nextval('s')",
        "SELECT repeat('x', 1000000000)",
        "SELECT * FROM generate_series(1, 1000000000)",
        "SELECT psn.other(1)",
        "SELECT touch(1)",
        "SELECT p.pg_column_size FROM posts p",
        // Functions in the guise of columns.
        "SELECT x.ts_stat FROM unnest(ARRAY['select set_config(''app.current_user_id'', ''x'', false)']) AS x",
        "SELECT unnest.ts_stat FROM unnest($1::text[])",
        "SELECT UNNEST.TS_STAT FROM unnest($1::text[])",
        "SELECT x.current_setting FROM unnest($1::text[]) AS x",
        "SELECT x.\"current_setting\" FROM unnest($1::text[]) AS x",
        "SELECT x.ts_stat, 1 AS ts_stat FROM unnest($1::text[]) AS x",
        "SELECT x.ts_stat FROM unnest($1::text[]) AS x, (SELECT 1 AS ts_stat) AS y",
        "SELECT (SELECT x.ts_stat FROM unnest($1::text[]) AS x) FROM (SELECT 1 AS ts_stat) AS x",
        "SELECT ts_stat.ts_stat FROM jsonb_array_elements_text($1::jsonb) AS ts_stat",
        "SELECT x.ts_stat FROM (SELECT unnest($1::text[])) AS x",
        "WITH x AS (SELECT 'select 1') SELECT x.ts_stat FROM x",
        "SELECT x.hash_record FROM posts x",
        "SELECT id FROM posts ORDER BY posts.row_to_json",
        "SELECT public.posts.row_to_json FROM posts",
        "UPDATE posts SET content = posts.row_to_json::text",
        "INSERT INTO notes (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET id = excluded.txid_current",
        "DELETE FROM notes RETURNING notes.ts_stat",
        "SELECT p.secret FROM posts p",
        "SELECT q.id FROM posts p",
        "SELECT (x).ts_stat FROM unnest($1::text[]) AS x",
        "SELECT ('select 1'::text).ts_stat",
        "SELECT x[1] FROM unnest($1::text[]) AS x",
        // A name that Postgres would cut, and a letter that it does not fold.
        "SELECT aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa FROM posts",
        "SELECT ran\u{212a}() OVER () FROM posts",
        "SELECT (p).pg_typeof FROM posts p",
        "SELECT * FROM pg_roles",
        "SELECT * FROM pg_catalog.pg_authid",
        "SELECT * FROM information_schema.tables",
        "SELECT 'users'::regclass",
        "SELECT '1'::oid::regrole",
        "SELECT CAST('now' AS regproc)",
        "SELECT regclass 'users'",
        "SELECT '<a/>'::xml",
        "SELECT 1 OPERATOR(pg_catalog.+) 1",
        "SELECT $$text$$",
        "SELECT E'\\x41'",
        "SELECT U&'\\0041'",
        "SELECT :name",
        "SELECT ?",
        "SELECT * FROM posts TABLESAMPLE system (1)",
        "SELECT content COLLATE \"C\" FROM posts",
    ] {
        if let Ok(sent) = check(sql) {
            panic!("{sql} would be sent as {sent}");
        }
    }
}

#[test]
fn refusals_name_the_line_that_would_allow_it() {
    for (sql, line) in [
        ("SELECT id FROM users", "\"users\" = { select = [\"…\"] }"),
        ("INSERT INTO posts (id) VALUES (1)", "\"posts\" = { insert = [\"…\"] }"),
        ("UPDATE shop.orders SET id = 1", "\"shop.orders\" = { update = [\"…\"] }"),
        ("DELETE FROM posts", "\"posts\" = { delete = true }"),
        ("SELECT psn.other(1)", "\"psn.other(…)\" = { execute = true }"),
    ] {
        let words = check(sql).unwrap_err().to_string();
        assert!(words.contains(line), "{words}");
    }
}

#[test]
fn what_is_sent_is_what_was_read() {
    let sent = check("SELECT /* a /* nested */ comment */ 'it''s', id -- to the end\nFROM posts;").unwrap();
    assert_eq!(sent, "SELECT 'it''s', id FROM posts");
}

#[test]
fn neither_long_nor_deep_ones() {
    assert!(matches!(check(&format!("SELECT '{}'", "x".repeat(70_000))), Err(Fault::TooLarge(_))));
    let deep = format!("SELECT {}1{}", "(".repeat(5_000), ")".repeat(5_000));
    assert!(matches!(check(&deep), Err(Fault::Denied(_))));
    // A chain is as deep as it is long.
    for link in ["+1", " AND 1", " UNION SELECT 1", "::int", " IS NULL"] {
        assert!(matches!(check(&format!("SELECT 1{}", link.repeat(4_000))), Err(Fault::Denied(_))), "{link}");
    }
}

/// What the parser tries twice, one inside of the other, doubles its work with each: this ends, or never does. No deadline ends it.
#[test]
fn nesting_of_any_kind_comes_to_an_end() {
    const DEEP: usize = 40;
    let forms = [
        ("(", ")"),
        ("((", "))"),
        ("(SELECT ", ")"),
        ("1 IN (", ")"),
        ("1 IN ((", "))"),
        ("EXISTS (", ")"),
        ("NOT ", ""),
        ("CASE WHEN ", " THEN 1 END"),
        ("CASE ", " WHEN 1 THEN 1 END"),
        ("CAST(", " AS int)"),
        ("position(", ")"),
        ("position(1 IN ", ")"),
        ("POSITION (", " IN 'a')"),
        ("substring(", " FROM 1 FOR 2)"),
        ("substring(", ")"),
        ("overlay(", " PLACING 'a' FROM 1)"),
        ("trim(", ")"),
        ("trim(BOTH 'a' FROM ", ")"),
        ("extract(epoch FROM ", ")"),
        ("ceil(", ")"),
        ("floor(", " TO DAY)"),
        ("ARRAY[", "]"),
        ("[", "]"),
        ("ARRAY(SELECT ", ")"),
        ("ROW(", ")"),
        ("interval ", ""),
        ("INTERVAL (", ") DAY"),
        ("date ", ""),
        ("f(", ")"),
        ("f(a => ", ")"),
        ("f(DISTINCT ", ")"),
        ("count(*) FILTER (WHERE ", ")"),
        ("sum(1) OVER (ORDER BY ", ")"),
        ("1 BETWEEN ", " AND 2"),
        ("'a' LIKE ", ""),
        ("1 = ANY(", ")"),
        ("x::numeric(", ")"),
        ("json_object(", ")"),
        ("{fn f(", ")}"),
    ];
    for (open, close) in forms {
        for (other, end) in forms {
            let nested = |bottom: &str| {
                format!(
                    "SELECT {}{bottom}{}",
                    format!("{open}{other}").repeat(DEEP / 2),
                    format!("{end}{close}").repeat(DEEP / 2)
                )
            };
            for bottom in ["1", "1 2", ")"] {
                // What comes of it does not matter here.
                let _ = check(&nested(bottom));
            }
        }
    }
    let tables = [("(", ")"), ("(SELECT 1 FROM ", ") a"), ("LATERAL (", ")"), ("a JOIN (", ") ON true"), ("f(", ")")];
    for (open, close) in tables {
        for bottom in ["a", "1", "a b c"] {
            let _ = check(&format!("SELECT 1 FROM {}{bottom}{}", open.repeat(DEEP), close.repeat(DEEP)));
        }
    }
    assert!(matches!(check(&format!("SELECT {}1{}", "position(".repeat(40), ")".repeat(40))), Err(Fault::Denied(_))));
    for called in
        ["current_role", "CURRENT_SCHEMA", "current_catalog", "current_user", "session_user", "system_user", "user"]
    {
        assert!(matches!(check(&format!("SELECT {called} FROM posts")), Err(Fault::Denied(_))), "{called}");
    }
    check("SELECT position('a' IN content), position('b' IN content) FROM posts").unwrap();
}

#[test]
fn the_deepest_that_is_admitted_fits_a_small_stack() {
    // The runtime's host functions have less than a thread's usual stack.
    let walked = std::thread::Builder::new().stack_size(SMALL_STACK).spawn(|| {
        let mut admitted = 0;
        for n in [490, 245, 160] {
            for link in ["+1", " AND 1", " UNION SELECT 1", "::int", " IS NULL", "||'a'"] {
                admitted += usize::from(check(&format!("SELECT 1{}", link.repeat(n))).is_ok());
            }
        }
        for depth in [10, 15, 20, 40] {
            let brackets = format!("SELECT {}1{}", "(".repeat(depth), ")".repeat(depth));
            let queries = format!("SELECT {}1{}", "(SELECT ".repeat(depth), ")".repeat(depth));
            let tables = format!("{}SELECT 1{}", "SELECT 1 FROM (".repeat(depth), ") AS a".repeat(depth));
            for sql in [brackets, queries, tables] {
                admitted += usize::from(check(&sql).is_ok());
            }
        }
        admitted
    });
    assert!(walked.unwrap().join().unwrap() >= 14);
}

#[test]
fn the_first_party_plugins_statements_pass() {
    for (manifest, source, least) in [
        (
            include_str!("../../../../../plugins/watchdog/plugin.toml"),
            include_str!("../../../../../plugins/watchdog/src/posts.rs"),
            5,
        ),
        (
            include_str!("../../../../../plugins/validate/plugin.toml"),
            include_str!("../../../../../plugins/validate/src/database.rs"),
            1,
        ),
        (
            include_str!("../../../../../examples/publish-post/plugin.toml"),
            include_str!("../../../../../examples/publish-post/src/lib.rs"),
            4,
        ),
    ] {
        let mut policy = Policy::new(&Manifest::parse(manifest.as_bytes()).unwrap().db);
        let found = statements(source);
        assert!(found.len() >= least, "{found:?}");
        for sql in found {
            policy.check(&sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        }
    }
}
