//! Points at which a psn can be killed, and the part of a test's psn that does it.
use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Mutex;

use psn::boundary::{Kind, Observer, Phase};

/// Where the points that were passed are written, one a line.
pub const TRACE: &str = "PSN_TESTED_TRACE";
/// Where to die: `kind number phase`.
pub const DIE: &str = "PSN_TESTED_DIE";

/// One passing of one seam, in the process (http, file, tool, event) or on the wire (http, sql).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Point {
    pub seam: Seam,
    /// Among those of its seam, from 1.
    pub number: usize,
    pub moment: Moment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Seam {
    Http,
    Sql,
    File,
    Tool,
    Event,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Moment {
    /// Nothing has left psn.
    Before,
    /// A temporary file is there.
    Begun,
    /// A temporary file is whole.
    Written,
    /// The other side has done it, and psn has not heard.
    Sent,
    /// psn has heard, and not acted on it.
    After,
}

const SEAMS: [(Seam, &str); 5] =
    [(Seam::Http, "http"), (Seam::Sql, "sql"), (Seam::File, "file"), (Seam::Tool, "tool"), (Seam::Event, "event")];

const MOMENTS: [(Moment, &str); 5] = [
    (Moment::Before, "before"),
    (Moment::Begun, "begun"),
    (Moment::Written, "written"),
    (Moment::Sent, "sent"),
    (Moment::After, "after"),
];

fn word<T: Copy + PartialEq>(names: &[(T, &'static str)], wanted: T) -> &'static str {
    names.iter().find(|(t, _)| *t == wanted).map_or("", |(_, name)| name)
}

fn read<T: Copy>(names: &[(T, &'static str)], wanted: &str) -> Option<T> {
    names.iter().find(|(_, name)| *name == wanted).map(|(t, _)| *t)
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", word(&SEAMS, self.seam), self.number, word(&MOMENTS, self.moment))
    }
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is no point: `http 3 after`");
        let [seam, number, moment] = text.split(' ').collect::<Vec<_>>()[..] else { return Err(bad()) };
        Ok(Self {
            seam: read(&SEAMS, seam).ok_or_else(bad)?,
            number: number.parse().map_err(|_| bad())?,
            moment: read(&MOMENTS, moment).ok_or_else(bad)?,
        })
    }
}

/// Counts, writes down, and dies where it is to.
struct Watch {
    trace: Option<PathBuf>,
    die: Option<Point>,
    passed: Mutex<BTreeMap<Seam, usize>>,
}

impl Observer for Watch {
    fn at(&self, kind: Kind, phase: Phase, what: &str) {
        let seam = match kind {
            Kind::Http => Seam::Http,
            Kind::File => Seam::File,
            Kind::Tool => Seam::Tool,
            Kind::Event => Seam::Event,
        };
        let moment = match phase {
            Phase::Before => Moment::Before,
            Phase::Begun => Moment::Begun,
            Phase::Written => Moment::Written,
            Phase::After => Moment::After,
        };
        let mut passed = self.passed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let number = passed.entry(seam).or_default();
        if moment == Moment::Before {
            *number += 1;
        }
        let point = Point { seam, number: *number, moment };
        if let Some(trace) = &self.trace {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(trace);
            let _ = file.and_then(|mut f| f.write_all(format!("{point} {what}\n").as_bytes()));
        }
        if self.die == Some(point) {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
            // The signal is on its way; nothing more is done here, under the lock.
            std::thread::park();
        }
    }
}

/// For the psn of the tests, at its beginning. The local hub's daemon is another process and is not watched.
pub fn watch_as_told() {
    let trace = std::env::var_os(TRACE).map(PathBuf::from);
    let die = std::env::var(DIE).ok().map(|text| text.parse().unwrap_or_else(|e| panic!("{DIE}: {e}")));
    if (trace.is_some() || die.is_some()) && std::env::args().nth(1).as_deref() != Some("local") {
        psn::boundary::observe(Box::new(Watch { trace, die, passed: Mutex::default() }));
    }
}
