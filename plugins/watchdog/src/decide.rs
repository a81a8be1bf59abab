//! What happens to a stuck post, decided from what the database and Trigger.dev say about it.

use crate::posts::Post;

/// How the run of a post's last attempt is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Run {
    /// There never was one.
    None,
    /// There was, and Trigger.dev has none of that name.
    Missing,
    /// Queued behind others, picked up, or waiting for something: it will go on by itself.
    Waiting(&'static str),
    /// Trigger.dev keeps it for later.
    Delayed,
    /// Its task is not in the deployed version.
    NoVersion,
    Working,
    /// A status that this watchdog has not heard of.
    Unheard,
    /// A person cancelled it.
    Cancelled,
    /// It ended, and says that the platform has the post, under this id.
    Published(String),
    /// It ended otherwise. Lost: it died without a word.
    Over {
        lost: bool,
    },
}

impl Run {
    /// For a person and a program; nothing where there never was a run.
    pub(crate) fn name(&self) -> Option<String> {
        Some(match self {
            Run::None => return None,
            Run::Missing => "missing".to_owned(),
            Run::Waiting(why) => format!("waiting: {why}"),
            Run::Delayed => "delayed".to_owned(),
            Run::NoVersion => "without a deployment".to_owned(),
            Run::Working => "working".to_owned(),
            Run::Unheard => "in a state that is not known".to_owned(),
            Run::Cancelled => "cancelled".to_owned(),
            Run::Published(id) => format!("published as {id}"),
            Run::Over { lost: true } => "lost".to_owned(),
            Run::Over { lost: false } => "failed".to_owned(),
        })
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Decision {
    /// Its run is alive, or nothing can be done now. `working`: the run was seen at work.
    Wait {
        reason: &'static str,
        seconds: u32,
        working: bool,
    },
    /// Its run is kept for later than the post is: it is to run now.
    Reschedule,
    /// It is out; only the record is missing.
    Record(String),
    /// For a person to look at: nothing here can know what is right.
    Park(&'static str),
    Fail,
    /// The next attempt. How the one before ended, where there was one.
    Trigger {
        ended: Option<&'static str>,
    },
}

/// Seconds after which a post whose run waits for its turn is looked at again.
pub(crate) const QUEUED_S: u32 = 300;
/// Seconds that a post waits for a task that is not deployed: a person is at it, or will be.
pub(crate) const MISSING_TASK_S: u32 = 900;

pub(crate) const BEGUN: &str = "its publishing was begun and not finished: look at the platform whether it is there";
pub(crate) const CANCELLED: &str = "its run was cancelled at Trigger.dev";
pub(crate) const LATE: &str = "it is later than it may be";
pub(crate) const POISON: &str = "its runs died without a word again and again: it may be what kills them";
pub(crate) const CONTRADICTION: &str =
    "its run says that it published, and the post says that this was never begun: look at the platform";

/// A lost run is told from a slow one by Trigger.dev and by signs of life, never by a post's deadline alone: that is how posts are
/// published twice.
pub(crate) fn decide(post: &Post, run: Run) -> Decision {
    let wait = |reason, seconds| Decision::Wait { reason, seconds, working: false };
    let until_start = || post.starts_in_s.ceil() as u32 + 1;
    let (ended, is_lost) = match run {
        Run::Waiting(reason) => return wait(reason, QUEUED_S),
        Run::NoVersion => return wait("deployment-missing", MISSING_TASK_S),
        Run::Unheard => return wait("unknown-run-status", MISSING_TASK_S),
        Run::Delayed if post.starts_in_s > 0.0 => return wait("delayed", until_start()),
        Run::Delayed if !post.is_late => return Decision::Reschedule,
        Run::Delayed => return Decision::Park(LATE),
        Run::Working if !post.is_silent() => {
            return Decision::Wait { reason: "executing", seconds: post.run_deadline_s, working: true };
        }
        Run::Published(id) if post.has_begun => return Decision::Record(id),
        Run::Published(_) => return Decision::Park(CONTRADICTION),
        // A run was confirmed for each attempt but the first.
        Run::None => (None, false),
        Run::Cancelled => (None, false),
        Run::Over { lost: false } => (Some("failed"), false),
        Run::Working | Run::Missing | Run::Over { lost: true } => (Some("lost"), true),
    };
    // The marker stands just before the call to the platform: whether that call came through, nobody knows.
    if post.has_begun {
        return Decision::Park(BEGUN);
    }
    if run == Run::Cancelled {
        return Decision::Park(CANCELLED);
    }
    if post.starts_in_s > 0.0 {
        return wait("not-yet-due", until_start());
    }
    if post.is_late {
        return Decision::Park(LATE);
    }
    if post.lost + u32::from(is_lost) >= post.poison_cap {
        return Decision::Park(POISON);
    }
    if post.is_spent {
        return Decision::Fail;
    }
    Decision::Trigger { ended }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(change: impl FnOnce(&mut Post)) -> Post {
        let mut post = Post::example("p", 1);
        change(&mut post);
        post
    }

    fn wait(reason: &'static str, seconds: u32) -> Decision {
        Decision::Wait { reason, seconds, working: reason == "executing" }
    }

    #[test]
    fn table() {
        let fresh = || post(|_| {});
        let begun = || post(|p| p.has_begun = true);
        let late = || post(|p| p.is_late = true);
        let spent = || post(|p| p.is_spent = true);
        let silent = || post(|p| p.silent_s = Some(601.0));
        let future = || post(|p| p.starts_in_s = 99.5);
        let lost = |n| post(move |p| p.lost = n);
        let trigger = |ended| Decision::Trigger { ended };
        let over = Run::Over { lost: false };
        let died = Run::Over { lost: true };
        for (post, run, expected) in [
            (fresh(), Run::None, trigger(None)),
            (fresh(), over.clone(), trigger(Some("failed"))),
            (fresh(), died.clone(), trigger(Some("lost"))),
            (fresh(), Run::Missing, trigger(Some("lost"))),
            (fresh(), Run::Waiting("queued"), wait("queued", 300)),
            (begun(), Run::Waiting("queued"), wait("queued", 300)),
            (late(), Run::Waiting("queued"), wait("queued", 300)),
            (fresh(), Run::NoVersion, wait("deployment-missing", 900)),
            (fresh(), Run::Unheard, wait("unknown-run-status", 900)),
            (begun(), Run::Unheard, wait("unknown-run-status", 900)),
            (fresh(), Run::Delayed, Decision::Reschedule),
            (future(), Run::Delayed, wait("delayed", 101)),
            (late(), Run::Delayed, Decision::Park(LATE)),
            (fresh(), Run::Working, wait("executing", 600)),
            (begun(), Run::Working, wait("executing", 600)),
            (silent(), Run::Working, trigger(Some("lost"))),
            (post(|p| (p.silent_s, p.has_begun) = (Some(601.0), true)), Run::Working, Decision::Park(BEGUN)),
            (post(|p| p.silent_s = Some(599.0)), Run::Working, wait("executing", 600)),
            (begun(), Run::Published("x".into()), Decision::Record("x".into())),
            (fresh(), Run::Published("x".into()), Decision::Park(CONTRADICTION)),
            (begun(), over.clone(), Decision::Park(BEGUN)),
            (begun(), Run::Missing, Decision::Park(BEGUN)),
            (begun(), Run::None, Decision::Park(BEGUN)),
            (begun(), Run::Cancelled, Decision::Park(BEGUN)),
            (post(|p| (p.has_begun, p.is_spent, p.is_late) = (true, true, true)), over.clone(), Decision::Park(BEGUN)),
            (fresh(), Run::Cancelled, Decision::Park(CANCELLED)),
            (spent(), Run::Cancelled, Decision::Park(CANCELLED)),
            (late(), Run::None, Decision::Park(LATE)),
            (future(), Run::None, wait("not-yet-due", 101)),
            (future(), over.clone(), wait("not-yet-due", 101)),
            (spent(), over.clone(), Decision::Fail),
            (spent(), Run::Waiting("queued"), wait("queued", 300)),
            (lost(2), died.clone(), Decision::Park(POISON)),
            (lost(2), over.clone(), trigger(Some("failed"))),
            (lost(1), died, trigger(Some("lost"))),
            (lost(3), over, Decision::Park(POISON)),
        ] {
            assert_eq!(decide(&post, run.clone()), expected, "{run:?} of {post:?}");
        }
    }
}
