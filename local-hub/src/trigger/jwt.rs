//! The short tokens that stand for an environment: signed with its key, limited to scopes.
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;

/// The vendor's own words for who made a token and for whom.
const ISSUER: &str = "https://id.trigger.dev";
const AUDIENCE: &str = "https://api.trigger.dev";

#[derive(Debug, Deserialize)]
pub(crate) struct Claims {
    /// The environment.
    pub(crate) sub: String,
    exp: i64,
    #[serde(default)]
    scopes: Vec<String>,
}

impl Claims {
    /// Whether some scope allows reading, or doing. What a scope is about is not looked at: a local hub has one owner.
    pub(crate) fn allow(&self, reads: bool) -> bool {
        self.scopes.iter().any(|scope| {
            let action = scope.split(':').next().unwrap_or_default();
            matches!(action, "admin" | "write" | "trigger" | "batchTrigger") || reads && action == "read"
        })
    }
}

pub(crate) fn sign(key: &str, environment: &str, scopes: &[String], issued: i64, expires: i64) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!(
        "{}.{}",
        part(&json!({ "alg": "HS256", "typ": "JWT" })),
        part(
            &json!({ "sub": environment, "pub": true, "scopes": scopes, "iss": ISSUER, "aud": AUDIENCE, "iat": issued, "exp": expires })
        ),
    );
    let signature = URL_SAFE_NO_PAD.encode(mac(key, &signed).finalize().into_bytes());
    format!("{signed}.{signature}")
}

/// The environment that a token says it is for. Nothing is proven by it.
pub(crate) fn subject(token: &str) -> Option<String> {
    Some(payload(token.split('.').nth(1)?)?.sub)
}

/// The claims of a token that this key signed and that has not expired.
pub(crate) fn verify(key: &str, token: &str, now: i64) -> Option<Claims> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (head, body) = signed.split_once('.')?;
    let head: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(head).ok()?).ok()?;
    if head["alg"] != "HS256" {
        return None;
    }
    mac(key, signed).verify_slice(&URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
    payload(body).filter(|claims| claims.exp > now)
}

fn payload(part: &str) -> Option<Claims> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

fn mac(key: &str, signed: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(signed.as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_signed_limited_and_short_lived() {
        let token = sign("tr_prod_k", "env1", &["read:runs".to_owned()], 100, 200);
        let claims = verify("tr_prod_k", &token, 150).unwrap();
        assert_eq!((claims.sub.as_str(), subject(&token).as_deref()), ("env1", Some("env1")));
        assert!(claims.allow(true) && !claims.allow(false));
        assert!(verify("tr_prod_k", &token, 200).is_none(), "expired");
        assert!(verify("tr_prod_other", &token, 150).is_none(), "another key");
        let (signed, _) = token.rsplit_once('.').unwrap();
        assert!(verify("tr_prod_k", &format!("{signed}."), 150).is_none(), "no signature");
        let none = URL_SAFE_NO_PAD.encode("{\"alg\":\"none\"}");
        let body = token.split('.').nth(1).unwrap();
        assert!(verify("tr_prod_k", &format!("{none}.{body}."), 150).is_none(), "no algorithm");
    }
}
