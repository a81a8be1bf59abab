//! Whatever one call comes to, psn gets over it, or stops with an error whose fix leads to the same hub.
//!
//! The calls are those of a run that was watched, and each is spoilt in each way. `scripts/matrix.sh fault` takes all of them; a
//! plain test run a sample.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use psn_tests::admin::Admin;
use psn_tests::edge::{Call, Fault, SqlFault};
use psn_tests::fix::{documented, error_of, follow, is_documented};
use psn_tests::points::{Point, Seam};
use psn_tests::rig::{Case, Ended, Rig};
use psn_tests::{found, sample};
use serde_json::Value;

const SETUP: [&str; 2] = ["run", "setup"];
/// So that an answer that never comes costs seconds here, and not a minute.
const SETTINGS: &str = "[http]\ntimeout = \"2s\"\n";
/// Cases of a sampled run.
const SAMPLE: usize = 14;
const SAMPLE_SQL: usize = 5;
/// Databases that one local hub makes before another takes over: a deleted project stays on disk for a week.
const CASES_PER_HUB: usize = 60;
/// A poll more or less, and a run has a call more or less: as many, in percent, may not come up.
const MISSED_PERCENT: usize = 10;

/// Something that is spoilt.
#[derive(Clone, Debug, Hash)]
enum Spoilt {
    Http { call: Call, before: Option<Call>, fault: usize },
    Sql { number: usize, fault: usize },
}

const SQL_FAULTS: [SqlFault; 4] = [SqlFault::Refused, SqlFault::NoTls, SqlFault::LostBefore, SqlFault::LostAfter];

#[derive(Default)]
struct Tally {
    tried: usize,
    got_over: usize,
    /// First error → how often.
    stopped: BTreeMap<String, usize>,
    words: BTreeSet<String>,
    missed: Vec<String>,
    failures: Vec<String>,
    longest: Duration,
}

fn rig() -> Rig {
    Rig::new(env!("CARGO_BIN_EXE_psn-tested"))
}

struct Clean {
    calls: Vec<Call>,
    sql_calls: usize,
    connections: usize,
    hub: Value,
}

fn clean_run(rig: &Rig) -> Clean {
    // The first setup compiles the components.
    rig.case().psn(&SETUP).answer.exits(0);
    let case = rig.case();
    case.configure(SETTINGS);
    case.psn(&SETUP).answer.exits(0);
    let (calls, sql_calls, connections) = (rig.http.calls(), rig.sql.calls(), rig.sql.connections());
    assert!(
        calls.len() >= 20 && sql_calls >= 20,
        "{} calls, {sql_calls} to the database: they are not seen",
        calls.len()
    );
    Clean { calls, sql_calls, connections, hub: found::hub(&case) }
}

/// Every call in every way.
fn every(clean: &Clean) -> (Vec<Spoilt>, Vec<Spoilt>) {
    let mut http = Vec::new();
    for (at, call) in clean.calls.iter().enumerate() {
        let before = at.checked_sub(1).map(|b| clean.calls[b].clone());
        for fault in 0..Fault::ALL.len() {
            http.push(Spoilt::Http { call: call.clone(), before: before.clone(), fault });
        }
    }
    let mut sql = vec![Spoilt::Sql { number: 1, fault: 0 }];
    sql.extend((1..=clean.connections).map(|number| Spoilt::Sql { number, fault: 1 }));
    for number in 1..=clean.sql_calls {
        sql.extend([2, 3].map(|fault| Spoilt::Sql { number, fault }));
    }
    (http, sql)
}

#[test]
fn whatever_a_call_comes_to_psn_gets_over_it_or_says_how() {
    let seed = sample::seed();
    let started = Instant::now();
    let (of, cases) = {
        let first = rig();
        let clean = clean_run(&first);
        let (http, sql) = every(&clean);
        let of =
            format!("{} calls in {} ways, {} ways for the database", clean.calls.len(), Fault::ALL.len(), sql.len());
        eprintln!("fault matrix: {of}; seed {seed}");
        let way = |s: &Spoilt| match s {
            Spoilt::Http { fault, .. } => *fault,
            Spoilt::Sql { fault, .. } => Fault::ALL.len() + fault,
        };
        let (most, most_sql) = (sample::size(SAMPLE, http.len()), sample::size(SAMPLE_SQL, sql.len()));
        let mut cases = sample::spread(&http, way, most, seed);
        cases.extend(sample::spread(&sql, way, most_sql, seed));
        if !sample::is_wide() {
            let tally = Mutex::new(Tally::default());
            cases.iter().for_each(|spoilt| spoil(&first, spoilt, &clean.hub, &tally));
            return report(tally.into_inner().expect("no panic"), seed);
        }
        (of, cases)
    };
    let share = cases.len().div_ceil(sample::workers()).clamp(1, CASES_PER_HUB);
    let next = Mutex::new(cases.chunks(share));
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..sample::workers() {
            scope.spawn(|| {
                loop {
                    let Some(chunk) = next.lock().expect("no panic").next() else { return };
                    let rig = rig();
                    let clean = clean_run(&rig);
                    chunk.iter().for_each(|spoilt| spoil(&rig, spoilt, &clean.hub, &tally));
                    let tried = tally.lock().expect("no panic").tried;
                    eprintln!("fault matrix: {tried} of {} after {:.0?}", cases.len(), started.elapsed());
                }
            });
        }
    });
    eprintln!("fault matrix: {} cases of {of}", cases.len());
    report(tally.into_inner().expect("no panic"), seed);
}

fn name(spoilt: &Spoilt) -> String {
    match spoilt {
        Spoilt::Http { call, fault, .. } => {
            format!("{} {} (no. {}): {:?}", call.service, call.request, call.nth, Fault::ALL[*fault])
        }
        Spoilt::Sql { number, fault } => format!("database {number}: {:?}", SQL_FAULTS[*fault]),
    }
}

fn spoil(rig: &Rig, spoilt: &Spoilt, expected: &Value, tally: &Mutex<Tally>) {
    let case = rig.case();
    case.configure(SETTINGS);
    rig.http.begin();
    rig.sql.begin();
    match spoilt {
        Spoilt::Http { call, before, fault } => rig.http.spoil(call, before.as_ref(), Fault::ALL[*fault]),
        Spoilt::Sql { number, fault } => rig.sql.spoil(*number, SQL_FAULTS[*fault]),
    }
    let ended = case.spawn(&SETUP, &[]);
    let fired = rig.http.fired() || rig.sql.fired();
    if !fired {
        // The call did not come up: what looks at the hub now is not to meet the fault in its place.
        rig.http.begin();
        rig.sql.begin();
    }
    let mut failures = Vec::new();
    let mut followed = None;
    if ended.answer.code != Some(0) {
        let how = follow(&case, &ended, &SETUP);
        failures.extend(how.lost.clone());
        failures.extend(undocumented(&how.codes));
        followed = Some(how);
    }
    if failures.is_empty() {
        failures.extend(found::differences(expected, &found::hub(&case)));
    }
    let name = name(spoilt);
    let mut tally = tally.lock().expect("no panic");
    tally.tried += 1;
    tally.longest = tally.longest.max(ended.elapsed);
    if !fired {
        tally.missed.push(name.clone());
    }
    match followed {
        None => tally.got_over += 1,
        Some(how) => {
            *tally.stopped.entry(how.codes.first().cloned().unwrap_or_default()).or_default() += 1;
            tally.words.extend(how.words);
        }
    }
    if !failures.is_empty() {
        eprintln!("FAILED {name}: {}", failures.join("; "));
        tally.failures.push(format!("{name}: {}", failures.join("; ")));
    }
}

fn undocumented(codes: &[String]) -> Vec<String> {
    let documented = documented();
    codes.iter().filter(|c| !is_documented(&documented, c)).map(|c| format!("{c} is not in docs/errors.md")).collect()
}

fn report(tally: Tally, seed: u64) {
    let stopped: usize = tally.stopped.values().sum();
    eprintln!(
        "fault matrix: {} cases tried, {} got over, {stopped} stopped and led on by the fix, {} failed, {} did not come up; longest {:.1?}; seed {seed}",
        tally.tried,
        tally.got_over,
        tally.failures.len(),
        tally.missed.len(),
        tally.longest
    );
    for (code, count) in &tally.stopped {
        eprintln!("  {code}: {count}");
    }
    for words in &tally.words {
        eprintln!("  for a person: {words}");
    }
    assert!(tally.failures.is_empty(), "seed {seed}:\n{}", tally.failures.join("\n"));
    assert!(
        tally.missed.len() * 100 <= tally.tried * MISSED_PERCENT,
        "seed {seed}: did not come up: {:?}",
        tally.missed
    );
}

/// What a database can be like, made real: psn stops with this code, and once it is mended, the fix leads to the hub.
#[test]
fn a_database_in_trouble_is_named_and_the_fix_leads_on() {
    let rig = rig();
    let clean = clean_run(&rig);
    let stops = |case: &Case<'_>, code: &str| {
        let ended: Ended = case.psn(&SETUP);
        let error = error_of(&ended).unwrap_or_else(|e| panic!("{code}: {e}"));
        assert_eq!(error["code"], code, "{error}");
        ended
    };
    let led_on = |case: &Case<'_>, code: &str, ended: &Ended| {
        let how = follow(case, ended, &SETUP);
        assert!(how.lost.is_none() && undocumented(&how.codes).is_empty(), "{code}: {how:?}");
        assert_eq!(found::differences(&clean.hub, &found::hub(case)), Vec::<String>::new(), "{code}");
    };
    let provisioned = || {
        let case = rig.case();
        for step in ["keys", "neon-provision"] {
            case.psn(&["run", step]).answer.exits(0);
        }
        case
    };
    for (code, make, mend) in TROUBLES {
        let case = provisioned();
        let admin = admin(&rig);
        let held = admin.run(make);
        let ended = stops(&case, code);
        drop(held);
        let _ = admin.run(mend);
        led_on(&case, code, &ended);
    }
    // What is kept here is no longer the password: somebody had Neon make another one, or changed it by SQL, which Neon does not know
    // of. Whatever needs the owner says so, and its fix, `psn run setup`, leads to a hub that works.
    for by_sql in [false, true] {
        let case = rig.case();
        case.psn(&SETUP).answer.exits(0);
        match by_sql {
            false => reset_password(&case),
            true => {
                admin(&rig).run(&["ALTER ROLE hub_owner PASSWORD 'changed by somebody'"]);
            }
        }
        let ended = case.psn(&["run", "migrate"]);
        assert_eq!(error_of(&ended).expect("an error")["code"], "hub.auth");
        let how = follow(&case, &ended, &SETUP);
        assert!(how.lost.is_none() && how.codes == ["hub.auth"] && how.words.is_empty(), "{how:?}");
        assert_eq!(found::differences(&clean.hub, &found::hub(&case)), Vec::<String>::new(), "by SQL: {by_sql}");
        case.psn(&["db", "verify"]).answer.exits(0);
    }
    killed_while_the_password_is_reset(&rig, &clean);
}

/// Killed at any call of a setup that has the password made anew, and run again: the hub works, as if nothing had happened.
fn killed_while_the_password_is_reset(rig: &Rig, clean: &Clean) {
    let broken = || {
        let case = rig.case();
        case.psn(&SETUP).answer.exits(0);
        admin(rig).run(&["ALTER ROLE hub_owner PASSWORD 'changed by somebody'"]);
        case
    };
    let case = broken();
    let (ended, points) = case.points(&["run", "neon-provision"]);
    ended.answer.exits(0);
    // Ids are taken out of the requests: nothing else is asked of a role.
    let is_reset = |call: &&Call| call.request.contains("/roles/");
    let resets = rig.http.calls().iter().filter(is_reset).count();
    assert_eq!(resets, 1, "the password is made anew once");
    // Before, during and after that call and the next one; the crash matrix has the ordinary ones.
    let reset = rig.http.calls().iter().position(|call| is_reset(&call)).expect("it is there") + 1;
    let near = |p: &&Point| p.seam == Seam::Http && (reset..=reset + 1).contains(&p.number);
    let points: Vec<Point> = points.iter().filter(near).copied().collect();
    assert!(points.len() >= 5, "{points:?}");
    for point in points {
        let case = broken();
        assert!(case.psn_dies(&["run", "neon-provision"], point).killed, "{point} did not come up");
        case.psn(&SETUP).answer.exits(0);
        assert_eq!(found::differences(&clean.hub, &found::hub(&case)), Vec::<String>::new(), "{point}");
    }
}

/// As Neon's console does it, until the new password is in force.
fn reset_password(case: &Case<'_>) {
    let key = case.secret("NEON_API_KEY").expect("a key");
    let project = case.neon_projects()[0]["id"].as_str().expect("an id").to_owned();
    let branches = case.rig.neon("GET", &format!("/projects/{project}/branches"), &key).json();
    let branch = branches["branches"][0]["id"].as_str().expect("a branch").to_owned();
    let role = format!("/projects/{project}/branches/{branch}/roles/hub_owner/reset_password");
    let reset = case.rig.neon("POST", &role, &key).json();
    for operation in reset["operations"].as_array().expect("operations") {
        let path = format!("/projects/{project}/operations/{}", operation["id"].as_str().expect("an id"));
        while case.rig.neon("GET", &path, &key).json()["operation"]["status"] != "finished" {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// Code; what makes the trouble, as the server's superuser; what a person does about it. The first statement's session stays open.
const TROUBLES: &[(&str, &[&str], &[&str])] = &[
    // Another session is in the middle of making what migration makes first.
    ("migrate.locked", &["BEGIN", "CREATE SCHEMA psn"], &[]),
    (
        "migrate.read-only",
        &["ALTER ROLE hub_owner SET default_transaction_read_only = on"],
        &["ALTER ROLE hub_owner RESET default_transaction_read_only"],
    ),
    (
        "migrate.disk-full",
        &[
            "CREATE FUNCTION public.full_disk() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$",
            "CREATE EVENT TRIGGER full_disk ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION public.full_disk()",
        ],
        &["DROP EVENT TRIGGER full_disk", "DROP FUNCTION public.full_disk()"],
    ),
];

/// The server's superuser, past the edge.
fn admin(rig: &Rig) -> Admin {
    Admin::at(&rig.machine, rig.sql.upstream(), "hub")
}
