//! What happens to a stuck post, decided from what the database and Trigger.dev say about it.

use crate::posts::Post;

/// How the run of a post's last attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    /// There never was one, or Trigger.dev has forgotten it.
    None,
    /// Queued, delayed or at work: it will come to an end by itself.
    Alive,
    /// At work for so long that it must have been lost.
    Overdue,
    /// A person cancelled it.
    Cancelled,
    /// It ended, one way or another, and the post is still not published.
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Wait,
    /// For a person to look at: nothing here can know what is right.
    Park(&'static str),
    Fail,
    Trigger,
}

/// A lost run is told from a slow one by Trigger.dev, never by time alone: that is how posts are published twice.
pub(crate) fn decide(post: &Post, run: Run, most_attempts: u32) -> Decision {
    if run == Run::Alive {
        return Decision::Wait;
    }
    // The marker stands just before the call to the platform: whether that call came through, nobody knows.
    if post.has_begun {
        return Decision::Park("its publishing was begun and not finished: look at the platform whether it is there");
    }
    if run == Run::Cancelled {
        return Decision::Park("its run was cancelled at Trigger.dev");
    }
    if post.is_too_late {
        return Decision::Park("it is later than it may be");
    }
    if post.attempt >= most_attempts {
        return Decision::Fail;
    }
    Decision::Trigger
}

#[cfg(test)]
mod tests {
    use psn_plugin::db::Uuid;

    use super::*;

    fn decision(run: Run, has_begun: bool, is_too_late: bool, attempt: u32) -> &'static str {
        let post = Post { id: Uuid::from("p"), attempt, run_id: None, has_begun, is_too_late, lag_s: 0.0 };
        match decide(&post, run, 5) {
            Decision::Wait => "wait",
            Decision::Trigger => "trigger",
            Decision::Fail => "fail",
            Decision::Park(reason) if reason.contains("begun") => "park: begun",
            Decision::Park(reason) if reason.contains("cancelled") => "park: cancelled",
            Decision::Park(_) => "park: late",
        }
    }

    #[test]
    fn table() {
        for (run, begun, late, attempt, expected) in [
            (Run::None, false, false, 0, "trigger"),
            (Run::None, false, false, 4, "trigger"),
            (Run::None, false, false, 5, "fail"),
            (Run::None, false, true, 0, "park: late"),
            (Run::None, true, false, 1, "park: begun"),
            (Run::Alive, false, false, 1, "wait"),
            (Run::Alive, true, false, 1, "wait"),
            (Run::Alive, false, true, 1, "wait"),
            (Run::Alive, false, false, 9, "wait"),
            (Run::Overdue, false, false, 1, "trigger"),
            (Run::Overdue, true, false, 1, "park: begun"),
            (Run::Overdue, false, false, 5, "fail"),
            (Run::Over, false, false, 1, "trigger"),
            (Run::Over, true, false, 1, "park: begun"),
            (Run::Over, true, true, 9, "park: begun"),
            (Run::Over, false, false, 6, "fail"),
            (Run::Cancelled, false, false, 1, "park: cancelled"),
            (Run::Cancelled, false, false, 9, "park: cancelled"),
            (Run::Cancelled, true, false, 1, "park: begun"),
        ] {
            assert_eq!(
                decision(run, begun, late, attempt),
                expected,
                "{run:?} begun {begun} late {late} attempt {attempt}"
            );
        }
    }
}
