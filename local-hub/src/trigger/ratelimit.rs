//! The API's rate limit: a token bucket per credential, its headers on every reply, and the vendor's 429.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::{ApiError, problem};
use crate::tokens;

/// The vendor's default for the whole API.
const API: Rate = Rate { capacity: 750, refill: 250, interval: Duration::from_secs(10) };
/// The vendor's default for the deployment routes, which a deploy polls.
const DEPLOYMENTS: Rate = Rate { capacity: 1_500, refill: 500, interval: Duration::from_secs(10) };
/// Credentials remembered at once. A local hub knows a handful; the bound is for whoever tries made-up ones.
const MAX_BUCKETS: usize = 1_024;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

#[derive(Clone, Copy)]
struct Rate {
    capacity: i64,
    /// Tokens added at the end of each whole interval.
    refill: i64,
    interval: Duration,
}

struct Bucket {
    tokens: i64,
    refilled: Instant,
}

#[derive(Debug, PartialEq, Eq)]
struct Verdict {
    allowed: bool,
    limit: i64,
    remaining: i64,
    until_reset: Duration,
}

impl Rate {
    fn take(self, bucket: &mut Bucket, now: Instant) -> Verdict {
        let intervals = now.duration_since(bucket.refilled).as_nanos() / self.interval.as_nanos();
        if intervals > 0 {
            let intervals = u32::try_from(intervals).unwrap_or(u32::MAX);
            bucket.tokens =
                bucket.tokens.saturating_add(self.refill.saturating_mul(i64::from(intervals))).min(self.capacity);
            // A long pause fills the bucket whatever the remainder was, so an overflow may simply start over.
            bucket.refilled =
                self.interval.checked_mul(intervals).and_then(|d| bucket.refilled.checked_add(d)).unwrap_or(now);
        }
        let allowed = bucket.tokens > 0;
        if allowed {
            bucket.tokens -= 1;
        }
        Verdict {
            allowed,
            limit: self.capacity,
            remaining: if allowed { bucket.tokens } else { -1 },
            until_reset: self.interval.saturating_sub(now.duration_since(bucket.refilled)),
        }
    }
}

type Key = (bool, [u8; 32]);

#[derive(Clone, Default)]
pub(crate) struct RateLimiter(Arc<Mutex<HashMap<Key, Bucket>>>);

impl RateLimiter {
    fn take(&self, deployments: bool, credential: &str, now: Instant) -> Verdict {
        let rate = if deployments { DEPLOYMENTS } else { API };
        // A panic while the lock was held cannot leave a bucket half-changed in a way that matters.
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (deployments, tokens::digest(credential));
        if buckets.len() >= MAX_BUCKETS && !buckets.contains_key(&key) {
            buckets.clear();
        }
        rate.take(buckets.entry(key).or_insert(Bucket { tokens: rate.capacity, refilled: now }), now)
    }
}

/// Runs before everything else: a request without credentials is refused here, as at the vendor.
pub(crate) async fn limit(State(limiter): State<RateLimiter>, request: Request, next: Next) -> Response {
    let Some(credential) = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()) else {
        return ApiError::MissingAuthorization.into_response();
    };
    let path = request.uri().path();
    let deployments = path.split('/').nth(3) == Some("deployments");
    let verdict = limiter.take(deployments, credential, Instant::now());
    let reset = SystemTime::now().checked_add(verdict.until_reset).and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    let reset = reset.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
    let mut response = if verdict.allowed { next.run(request).await } else { refusal(&verdict, reset) };
    let headers = response.headers_mut();
    headers.insert(LIMIT, HeaderValue::from(verdict.limit));
    headers.insert(REMAINING, HeaderValue::from(verdict.remaining.max(0)));
    headers.insert(RESET, HeaderValue::from(reset));
    response
}

fn refusal(verdict: &Verdict, reset: u64) -> Response {
    let seconds = verdict.until_reset.as_millis().div_ceil(1_000);
    let detail = format!("Rate limit exceeded 0/{} requests remaining. Retry in {seconds} seconds.", verdict.limit);
    let mut body = problem(StatusCode::TOO_MANY_REQUESTS, "Rate Limit Exceeded", &detail);
    body["reset"] = reset.into();
    body["limit"] = verdict.limit.into();
    body["remaining"] = verdict.remaining.into();
    body["secondsUntilReset"] = u64::try_from(seconds).unwrap_or(u64::MAX).into();
    let mut response = (StatusCode::TOO_MANY_REQUESTS, Json(body)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { capacity: 3, refill: 2, interval: Duration::from_secs(10) };

    #[test]
    fn a_bucket_empties_and_refills_by_whole_intervals() {
        let start = Instant::now();
        let mut bucket = Bucket { tokens: RATE.capacity, refilled: start };
        let mut take = |after: u64| RATE.take(&mut bucket, start + Duration::from_secs(after));
        assert_eq!([take(0).remaining, take(1).remaining, take(2).remaining], [2, 1, 0]);
        let refused = take(3);
        assert_eq!(refused, Verdict { allowed: false, limit: 3, remaining: -1, until_reset: Duration::from_secs(7) });
        assert!(!take(9).allowed);
        let refilled = take(10);
        assert_eq!((refilled.allowed, refilled.remaining, refilled.until_reset), (true, 1, Duration::from_secs(10)));
        assert_eq!(take(1_000).remaining, 2, "never above its capacity");
    }

    #[test]
    fn credentials_and_deployments_have_buckets_of_their_own() {
        let limiter = RateLimiter::default();
        let now = Instant::now();
        while limiter.take(false, "a", now).allowed {}
        assert!(limiter.take(false, "b", now).allowed);
        assert_eq!(limiter.take(true, "a", now).limit, DEPLOYMENTS.capacity);
        assert!(!limiter.take(false, "a", now).allowed);
    }

    #[test]
    fn made_up_credentials_do_not_fill_the_memory() {
        let limiter = RateLimiter::default();
        let now = Instant::now();
        for i in 0..MAX_BUCKETS * 2 {
            limiter.take(false, &i.to_string(), now);
        }
        assert!(limiter.0.lock().unwrap().len() <= MAX_BUCKETS);
    }
}
