use psn_bindings::imports::psn::plugin::hub::{Error, Host};

use super::{FactError, HubFacts};
use crate::capabilities::View;
use crate::events::redact_value;

fn error(code: &str, message: impl Into<String>) -> Error {
    Error { code: code.to_owned(), message: message.into() }
}

impl Host for View<'_, HubFacts> {
    async fn facts(&mut self, topic: String) -> wasmtime::Result<Result<String, Error>> {
        self.call.meter.host_call(1)?;
        let topic = match self.cap.policy.decide(&topic) {
            Ok(topic) => topic,
            Err(message) => return Ok(Err(error("denied", message))),
        };
        let answer = match tokio::time::timeout(self.call.deadline.remaining(), self.cap.source.facts(topic)).await {
            Ok(answer) => answer,
            Err(_) => {
                return Ok(Err(error(
                    "deadline",
                    format!("the call's deadline passed before the hub's {topic} were known"),
                )));
            }
        };
        Ok(match answer {
            Ok(mut facts) => {
                let before = self.call.redactor.finds(facts.to_string().as_bytes());
                redact_value(&mut facts, &self.call.redactor);
                if before {
                    self.call.leaked(&format!("the hub's {topic}"));
                }
                // What is left can only be spread over more than one string.
                Ok(self.call.redact("the hub's facts", &facts.to_string()).into_owned())
            }
            Err(e @ FactError::Unknown) => Err(error("unknown-topic", e.to_string())),
            Err(FactError::Unavailable(why)) => {
                Err(error("unavailable", self.call.redact("a fact's error", &why).into_owned()))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::FactSource;
    use super::*;
    use crate::capabilities::Deadline;
    use crate::capabilities::testing::{Rig, manifest};

    struct Source;

    #[async_trait::async_trait]
    impl FactSource for Source {
        async fn facts(&self, topic: &str) -> Result<serde_json::Value, FactError> {
            match topic {
                "git" => {
                    Ok(serde_json::json!({ "repository": false, "remote": "https://x:ghp_canary0001@git.example" }))
                }
                "tasks" => std::future::pending().await,
                "migrations" => Err(FactError::Unavailable("no database yet; run psn run setup".into())),
                _ => Err(FactError::Unknown),
            }
        }
    }

    #[tokio::test]
    async fn granted_topics_are_answered_without_secrets() {
        let mut rig = Rig::new(HubFacts::new(
            &manifest("[hub]\nfacts = [\"git\", \"tasks\", \"migrations\", \"moon\"]\n"),
            Arc::new(Source),
        ));
        rig.secret("TOKEN", "ghp_canary0001");
        let facts = rig.view().facts("git".into()).await.unwrap().unwrap();
        assert_eq!(facts, r#"{"repository":false,"remote":"https://x:[redacted]@git.example"}"#);
        assert_eq!(rig.call.leaks, ["the hub's git"]);
        for (topic, code) in [("catalog", "denied"), ("moon", "unknown-topic"), ("migrations", "unavailable")] {
            assert_eq!(rig.view().facts(topic.into()).await.unwrap().unwrap_err().code, code);
        }
        rig.call.deadline = Deadline::after(Duration::from_millis(20));
        assert_eq!(rig.view().facts("tasks".into()).await.unwrap().unwrap_err().code, "deadline");
    }
}
