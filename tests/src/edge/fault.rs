//! What can go wrong with one HTTP call.

/// How a call is spoilt. Where the name does not say that it was applied, the service never heard of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Refused,
    ResetBeforeBody,
    ResetMidBody,
    Timeout,
    Drip,
    Status(u16),
    RateLimited { retry_after: bool },
    Html(u16),
    MalformedJson,
    WrongSchema,
    EmptyBody,
    OversizedBody,
    AppliedButUnanswered,
}

/// Status, headers, body.
pub(super) type Reply = (u16, Vec<(String, String)>, Vec<u8>);

impl Fault {
    pub const ALL: [Fault; 23] = [
        Fault::Refused,
        Fault::ResetBeforeBody,
        Fault::ResetMidBody,
        Fault::Timeout,
        Fault::Drip,
        Fault::Status(400),
        Fault::Status(401),
        Fault::Status(403),
        Fault::Status(404),
        Fault::Status(409),
        Fault::Status(422),
        Fault::Status(423),
        Fault::RateLimited { retry_after: true },
        Fault::RateLimited { retry_after: false },
        Fault::Status(500),
        Fault::Html(502),
        Fault::Status(503),
        Fault::Html(524),
        Fault::MalformedJson,
        Fault::WrongSchema,
        Fault::EmptyBody,
        Fault::OversizedBody,
        Fault::AppliedButUnanswered,
    ];

    /// Whether the service does what was asked. What comes back broken was sent by a service that had done it.
    pub fn is_applied(self) -> bool {
        matches!(
            self,
            Fault::AppliedButUnanswered
                | Fault::ResetMidBody
                | Fault::Drip
                | Fault::MalformedJson
                | Fault::WrongSchema
                | Fault::EmptyBody
                | Fault::OversizedBody
        )
    }

    /// A reply of a service that did nothing.
    pub(super) fn refusal(self) -> Option<Reply> {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let json = |status: u16, more: Vec<(String, String)>| {
            let mut headers = vec![header("content-type", "application/json")];
            headers.extend(more);
            // Neon's fields and Trigger.dev's.
            let body = format!(
                r#"{{"request_id":"7f3a","code":"","message":"refused by the test","error":"refused by the test: {status}"}}"#
            );
            (status, headers, body.into_bytes())
        };
        match self {
            Fault::Status(status) => Some(json(status, Vec::new())),
            Fault::RateLimited { retry_after: true } => Some(json(429, vec![header("retry-after", "1")])),
            Fault::RateLimited { retry_after: false } => Some(json(429, Vec::new())),
            Fault::Html(status) => {
                let page =
                    format!("<!DOCTYPE html><html><head><title>{status}</title></head><body>Cloudflare</body></html>");
                Some((status, vec![header("content-type", "text/html; charset=UTF-8")], page.into_bytes()))
            }
            _ => None,
        }
    }
}
