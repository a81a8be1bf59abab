//! Kill psn at any point of setup, run it again, and there is one hub, the same as without the kill.
//!
//! The points are those of a run that was watched: nothing here says which calls setup makes. `scripts/matrix.sh crash` takes all
//! of them; a plain test run a sample of them.
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use psn_tests::points::{Moment, Point, Seam};
use psn_tests::rig::{Ended, Rig};
use psn_tests::{found, sample};
use serde_json::Value;

const SETUP: [&str; 2] = ["run", "setup"];

/// Points of a sampled run, and pairs of them: under a minute on two idle cores.
const SAMPLE: usize = 16;
const SAMPLE_PAIRS: usize = 3;
/// Pairs of a full run.
const PAIRS: usize = 60;
/// Databases that one local hub makes before another takes over: a deleted project stays on disk for a week.
const CASES_PER_HUB: usize = 60;
/// A poll more or less, and a run has a point more or less: as many, in percent, may not come up.
const MISSED_PERCENT: usize = 10;

#[derive(Clone, Debug, Hash)]
struct Deaths(Vec<Point>);

#[derive(Default)]
struct Tally {
    tried: usize,
    died: BTreeMap<(Seam, Moment), usize>,
    missed: Vec<String>,
    failures: Vec<String>,
}

fn rig() -> Rig {
    Rig::new(env!("CARGO_BIN_EXE_psn-tested"))
}

/// An uninterrupted setup in a warm hub: its points, and what it makes.
fn clean_run(rig: &Rig) -> (Vec<Point>, Value, Duration) {
    // The first setup compiles the components.
    assert_eq!(rig.case().psn(&SETUP).answer.exits(0).events.last().expect("a summary")["status"], "success");
    let case = rig.case();
    let (ended, points) = case.points(&SETUP);
    ended.answer.exits(0);
    let hub = found::hub(&case);
    assert_eq!(
        (&hub["neon projects"], &hub["trigger projects"], &hub["trigger"]["deployed"]),
        (&1.into(), &1.into(), &1.into()),
        "{hub:#}"
    );
    (points, hub, ended.elapsed)
}

#[test]
fn killed_anywhere_and_run_again_there_is_one_hub() {
    let seed = sample::seed();
    let (points, deaths) = {
        let first = rig();
        let (points, hub, elapsed) = clean_run(&first);
        eprintln!("crash matrix: {} points in a setup of {elapsed:.1?}; seed {seed}", points.len());
        for (seam, least) in [(Seam::Http, 20), (Seam::Sql, 20), (Seam::File, 10), (Seam::Event, 10)] {
            let number = points.iter().filter(|p| p.seam == seam).map(|p| p.number).max().unwrap_or_default();
            assert!(number >= least, "setup passes the seam {seam:?} {number} times: it is not watched any more");
        }
        let most = sample::size(SAMPLE, points.len());
        let pairs = if sample::is_wide() { PAIRS.min(most / 4) } else { SAMPLE_PAIRS };
        let mut deaths: Vec<Deaths> =
            sample::spread(&points, |p| (p.seam, p.moment), most, seed).into_iter().map(|p| Deaths(vec![p])).collect();
        deaths.extend((0..pairs).map(|n| {
            let any =
                |which: &str| points[usize::try_from(sample::chance(seed, (which, n))).unwrap_or(0) % points.len()];
            Deaths(vec![any("first"), any("second")])
        }));
        if !sample::is_wide() {
            let tally = Mutex::new(Tally::default());
            for death in &deaths {
                die(&first, death, &hub, &tally);
            }
            return report(tally.into_inner().expect("no panic"), seed);
        }
        (points.len(), deaths)
    };
    let share = deaths.len().div_ceil(sample::workers()).clamp(1, CASES_PER_HUB);
    let next = Mutex::new(deaths.chunks(share));
    let tally = Mutex::new(Tally::default());
    let started = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..sample::workers() {
            scope.spawn(|| {
                loop {
                    let Some(chunk) = next.lock().expect("no panic").next() else { return };
                    let rig = rig();
                    let (_, hub, _) = clean_run(&rig);
                    for death in chunk {
                        die(&rig, death, &hub, &tally);
                    }
                    let tried = tally.lock().expect("no panic").tried;
                    eprintln!("crash matrix: {tried} of {} after {:.0?}", deaths.len(), started.elapsed());
                }
            });
        }
    });
    eprintln!("crash matrix: {} cases of {points} points", deaths.len());
    report(tally.into_inner().expect("no panic"), seed);
}

fn die(rig: &Rig, deaths: &Deaths, expected: &Value, tally: &Mutex<Tally>) {
    let case = rig.case();
    let mut died = Vec::new();
    let mut missed = Vec::new();
    let mut failures = Vec::new();
    for (n, point) in deaths.0.iter().enumerate() {
        let ended = case.psn_dies(&SETUP, *point);
        if ended.killed {
            died.push((point.seam, point.moment));
        } else if ended.answer.code == Some(0) {
            // The second of two deaths is in a run that has less left to do.
            if n == 0 {
                missed.push(point.to_string());
            }
        } else {
            failures.push(format!("it was not killed and failed: {}", words(&ended)));
        }
    }
    let again = case.psn(&SETUP);
    if again.answer.code == Some(0) {
        failures.extend(found::differences(expected, &found::hub(&case)));
    } else {
        failures.push(format!("setup did not go on: {}", words(&again)));
    }
    let names: Vec<String> = deaths.0.iter().map(Point::to_string).collect();
    let mut tally = tally.lock().expect("no panic");
    tally.tried += 1;
    for at in died {
        *tally.died.entry(at).or_default() += 1;
    }
    tally.missed.extend(missed);
    if !failures.is_empty() {
        eprintln!("FAILED {}: {}", names.join(", then "), failures.join("; "));
        tally.failures.push(format!("{}: {}", names.join(", then "), failures.join("; ")));
    }
}

fn words(ended: &Ended) -> String {
    let error = ended.answer.events.iter().rev().find(|e| e["error"].is_object()).map(|e| e["error"].to_string());
    format!("exit {:?}: {}", ended.answer.code, error.unwrap_or_else(|| ended.answer.stderr.clone()))
}

fn report(tally: Tally, seed: u64) {
    let deaths: usize = tally.died.values().sum();
    let survived = tally.tried - tally.failures.len();
    eprintln!(
        "crash matrix: {} cases tried with {deaths} deaths, {survived} survived, {} points did not come up; seed {seed}",
        tally.tried,
        tally.missed.len()
    );
    for ((seam, moment), count) in &tally.died {
        eprintln!("  {seam:?} {moment:?}: {count}");
    }
    assert!(tally.failures.is_empty(), "seed {seed}:\n{}", tally.failures.join("\n"));
    assert!(
        tally.missed.len() * 100 <= tally.tried * MISSED_PERCENT,
        "seed {seed}: did not come up: {:?}",
        tally.missed
    );
}

/// `PSN_MATRIX_POINT="file 12 written"` tries one, for whoever mends what it shows.
#[test]
fn one_point_by_name() {
    let Ok(text) = std::env::var("PSN_MATRIX_POINT") else { return };
    let rig = rig();
    let (_, hub, _) = clean_run(&rig);
    let tally = Mutex::new(Tally::default());
    die(&rig, &Deaths(text.split(',').map(|p| p.trim().parse().expect("a point")).collect()), &hub, &tally);
    report(tally.into_inner().expect("no panic"), 0);
}
