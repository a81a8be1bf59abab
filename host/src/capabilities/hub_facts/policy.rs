//! Which topics a plugin may ask about.
use crate::capabilities::clean::quoted;
use crate::plugins::manifest::Manifest;

pub(super) struct Policy {
    topics: Vec<String>,
}

impl Policy {
    pub(super) fn new(manifest: &Manifest) -> Self {
        Self { topics: manifest.hub.facts.clone() }
    }

    /// The topic, if it is granted; else what the manifest lacks.
    pub(super) fn decide<'t>(&self, topic: &'t str) -> Result<&'t str, String> {
        if self.topics.iter().any(|t| t == topic) {
            return Ok(topic);
        }
        let mut topics: Vec<String> = self.topics.iter().map(|t| format!("{t:?}")).collect();
        topics.push(format!("\"{}\"", topic.escape_debug()));
        Err(format!(
            "the topic {} is not granted; the manifest line [hub] facts = [{}] would allow it",
            quoted(topic),
            topics.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capabilities::testing::manifest;

    #[test]
    fn topics_are_granted_one_by_one() {
        let policy = Policy::new(&manifest("[hub]\nfacts = [\"git\"]\n"));
        assert_eq!(policy.decide("git"), Ok("git"));
        assert!(policy.decide("migrations").unwrap_err().contains("[hub] facts = [\"git\", \"migrations\"]"));
        for topic in ["", "*", "Git", "git "] {
            assert!(policy.decide(topic).is_err(), "{topic}");
        }
    }
}
