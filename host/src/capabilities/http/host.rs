use chrono::Utc;
use psn_bindings::imports::psn::plugin::http::{Error, Host, Request, Response};

use super::Http;
use super::capture::receive;
use super::connect::{Answer, ExchangeError, Unreachable};
use super::inject::{InjectError, Outgoing};
use super::policy::{Authorised, Refused};
use super::resolve::{ResolveError, Resolved};
use super::retry::{MAX_RETRIES, chance, passing, wait};
use crate::capabilities::View;
use crate::capabilities::captured::refused;

/// Why one try has no answer.
enum Failed {
    Unreachable(String),
    NotPublic(String),
    Unanswered(String),
    /// An answer that cannot be shown.
    Unreadable(String),
    TooLarge(String),
    Deadline {
        sent: bool,
    },
}

impl Failed {
    /// Whether the next try may go better.
    fn passing(&self) -> bool {
        matches!(self, Failed::Unreachable(_) | Failed::Unanswered(_))
    }
}

fn error(code: &str, message: impl Into<String>, sent: bool) -> Error {
    Error { code: code.to_owned(), message: message.into(), sent }
}

impl Host for View<'_, Http> {
    async fn send(&mut self, mut request: Request) -> wasmtime::Result<Result<Response, Error>> {
        self.call.meter.host_call(1)?;
        let body = request.body.take();
        let answer = self.call_service(request, body).await?;
        Ok(answer.map_err(|e| Error { message: self.call.redact("an HTTP error", &e.message).into_owned(), ..e }))
    }
}

impl View<'_, Http> {
    async fn call_service(
        &mut self,
        mut request: Request,
        body: Option<Vec<u8>>,
    ) -> wasmtime::Result<Result<Response, Error>> {
        if self.call.transaction_open {
            return Ok(Err(error(
                "denied",
                "no HTTP call is made while a database transaction is open: commit it or drop it first",
                false,
            )));
        }
        request.body = body;
        let authorised = match self.cap.policy.decide(&request) {
            Ok(authorised) => authorised,
            Err(refused) => {
                let code = if matches!(refused, Refused::TooLarge(_)) { "too-large" } else { "denied" };
                return Ok(Err(error(code, refused.to_string(), false)));
            }
        };
        let kept = authorised.capture().into_iter().flat_map(|capture| capture.values.iter().map(|(_, name)| name));
        if let Err(e) = refused(kept, &self.cap.secrets, &self.cap.keeper) {
            return Ok(Err(error("denied", format!("its answer could not be kept: {e}"), false)));
        }
        let outgoing = match Outgoing::new(&authorised, request.body.take(), &self.cap.secrets) {
            Ok(outgoing) => outgoing,
            Err(e) => {
                let code = if matches!(e, InjectError::Missing { .. }) { "secret-missing" } else { "denied" };
                return Ok(Err(error(code, e.to_string(), false)));
            }
        };
        let answer = match self.with_retries(&authorised, &outgoing).await? {
            Ok(answer) => answer,
            Err((failed, sent)) => return Ok(Err(self.failure(&authorised, failed, sent))),
        };
        Ok(receive(self.call, &authorised, answer, &self.cap.secrets, &self.cap.keeper)
            .await
            .map_err(|e| error(e.code(), e.to_string(), true)))
    }

    /// The answer of the last try, or why there is none and whether any try may have reached the service.
    async fn with_retries(
        &mut self,
        authorised: &Authorised,
        outgoing: &Outgoing<'_>,
    ) -> wasmtime::Result<Result<Answer, (Failed, bool)>> {
        let mut reached = false;
        for retry in 0.. {
            self.call.meter.http_call(1)?;
            self.call.meter.http_out(outgoing.size())?;
            let tried = self.try_once(authorised, outgoing).await?;
            let headers = match &tried {
                Ok(answer) if passing(answer.status) => Some(&answer.headers),
                Err(failed) if failed.passing() => None,
                Ok(_) => return Ok(tried.map_err(|f| (f, true))),
                Err(_) => return Ok(tried.map_err(|f| (f, reached))),
            };
            reached |= matches!(&tried, Ok(_) | Err(Failed::Unanswered(_)));
            let pause = wait(retry, headers, Utc::now(), chance());
            match pause {
                Some(pause)
                    if retry < MAX_RETRIES && authorised.repeatable() && pause < self.call.deadline.remaining() =>
                {
                    tokio::time::sleep(pause).await
                }
                _ => return Ok(tried.map_err(|f| (f, reached))),
            }
        }
        unreachable!("the loop ends by returning")
    }

    async fn try_once(
        &mut self,
        authorised: &Authorised,
        outgoing: &Outgoing<'_>,
    ) -> wasmtime::Result<Result<Answer, Failed>> {
        let until = tokio::time::Instant::now() + self.call.deadline.clamp(self.cap.try_limit);
        let resolved = match tokio::time::timeout_at(until, Resolved::new(authorised, self.cap.lookup.as_ref())).await {
            Ok(Ok(resolved)) => resolved,
            Ok(Err(e @ ResolveError::NotPublic { .. })) => return Ok(Err(Failed::NotPublic(e.to_string()))),
            Ok(Err(e @ ResolveError::NotFound { .. })) => return Ok(Err(Failed::Unreachable(e.to_string()))),
            Err(_) => return Ok(Err(Failed::Deadline { sent: false })),
        };
        loop {
            let mut connection = match tokio::time::timeout_at(until, self.cap.dialler.connect(&resolved)).await {
                Ok(Ok(connection)) => connection,
                Ok(Err(e @ Unreachable { .. })) => return Ok(Err(Failed::Unreachable(e.to_string()))),
                Err(_) => return Ok(Err(Failed::Deadline { sent: false })),
            };
            let exchange = connection.exchange(outgoing, &mut self.call.meter);
            return Ok(match tokio::time::timeout_at(until, exchange).await {
                Ok(Ok(answer)) => {
                    self.cap.dialler.keep(connection);
                    Ok(answer)
                }
                // The service had closed the warm connection: nothing was sent, so another one is as good as the first.
                Ok(Err(ExchangeError::NotSent)) if connection.reused() => continue,
                Ok(Err(e @ ExchangeError::NotSent)) => Err(Failed::Unreachable(e.to_string())),
                Ok(Err(e @ ExchangeError::Elsewhere(_))) => Err(Failed::NotPublic(e.to_string())),
                Ok(Err(e @ ExchangeError::Unanswered(_))) => Err(Failed::Unanswered(e.to_string())),
                Ok(Err(e @ ExchangeError::Encoded(_))) => Err(Failed::Unreadable(e.to_string())),
                Ok(Err(e @ ExchangeError::TooLarge { .. })) => Err(Failed::TooLarge(e.to_string())),
                Ok(Err(ExchangeError::Exceeded(e))) => return Err(e.into()),
                Err(_) => Err(Failed::Deadline { sent: true }),
            });
        }
    }

    fn failure(&self, authorised: &Authorised, failed: Failed, reached: bool) -> Error {
        let call = format!("{} {}", authorised.method(), authorised.url());
        match failed {
            Failed::Unreachable(why) => error("unreachable", format!("{call}: {why}"), reached),
            Failed::NotPublic(why) => error("denied", format!("{call}: {why}"), reached),
            Failed::Unanswered(why) | Failed::Unreadable(why) => error("unanswered", format!("{call}: {why}"), true),
            Failed::TooLarge(why) => error("too-large", format!("{call}: {why}"), true),
            Failed::Deadline { sent } if self.call.deadline.passed() => {
                error("deadline", format!("{call}: the call's deadline passed"), sent || reached)
            }
            Failed::Deadline { sent } => error(
                "deadline",
                format!("{call}: no whole answer within {} s", self.cap.try_limit.as_secs()),
                sent || reached,
            ),
        }
    }
}
