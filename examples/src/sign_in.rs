//! Who somebody is: a name, and a token that says so and that nobody else can make.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::program::refusal;

/// How long a token is good for.
const GOOD_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// 1 to 32 small letters, digits and dashes, so that it can be a word of a topic and there is one way to write it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_fit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        match (1..=32).contains(&text.len()) && text.chars().all(is_fit) {
            true => Ok(Self(text)),
            false => Err("a name has 1 to 32 small letters, digits or dashes"),
        }
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Signs tokens, and tells those that it signed from others. All servers have the same secret.
#[derive(Clone)]
pub struct Signer(Hmac<Sha256>);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

impl Signer {
    /// With this secret.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        Self(Hmac::new_from_slice(secret.as_bytes()).expect("a key has any length"))
    }

    /// `name.seconds.signature`: good for a day.
    #[must_use]
    pub fn token(&self, name: &Name) -> String {
        let until = now() + GOOD_FOR.as_secs();
        let said = format!("{name}.{until}");
        let signature = self.sign(&format!("token {said}"));
        format!("{said}.{signature}")
    }

    /// Whose token it is.
    ///
    /// # Errors
    /// When this signer did not sign it, or too long ago.
    pub fn verify(&self, token: &str) -> Result<Name, &'static str> {
        const INVALID: &str = "the token is not valid: sign in";
        let (said, signature) = token.rsplit_once('.').ok_or(INVALID)?;
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).map_err(|_| INVALID)?;
        let mac = self.0.clone().chain_update(format!("token {said}"));
        mac.verify_slice(&signature).map_err(|_| INVALID)?;
        let (name, until) = said.rsplit_once('.').ok_or(INVALID)?;
        match until.parse::<u64>() {
            Ok(until) if until > now() => Name::try_from(name.to_owned()),
            Ok(_) => Err("the token is over: sign in again"),
            Err(_) => Err(INVALID),
        }
    }

    /// A text that nobody can guess who does not have the secret, and that is the same for the same `what`.
    #[must_use]
    pub fn sign(&self, what: &str) -> String {
        let mac = self.0.clone().chain_update(what).finalize().into_bytes();
        BASE64_URL_SAFE_NO_PAD.encode(mac)
    }
}

/// A secret on the command line.
///
/// # Errors
/// When it is too short to be one.
pub fn secret(text: &str) -> Result<String, String> {
    match text.len() >= 8 {
        true => Ok(text.to_owned()),
        false => Err("a secret has 8 letters at least".to_owned()),
    }
}

/// `POST /sign-in` with `{"name": "anna"}` gives a token to whoever gives a name: these are examples. Yours ask for a
/// password.
pub fn routes<S: Clone + Send + Sync + 'static>(signer: Signer) -> Router<S> {
    Router::new().route("/sign-in", post(sign_in)).with_state(signer)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignIn {
    name: Name,
}

async fn sign_in(State(signer): State<Signer>, Json(SignIn { name }): Json<SignIn>) -> Json<Value> {
    Json(json!({"token": signer.token(&name), "name": name}))
}

/// Whose token is in the header `Authorization: Bearer TOKEN`; or the refusal to be answered.
///
/// # Errors
/// There is none, or it is not valid.
pub fn signed_in(signer: &Signer, headers: &HeaderMap) -> Result<Name, Box<Response>> {
    let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = token.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    signer.verify(token).map_err(|reason| Box::new(refusal(StatusCode::UNAUTHORIZED, reason)))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::{Name, Signer, now};

    fn anna() -> Name {
        Name::try_from("anna".to_owned()).unwrap()
    }

    #[test]
    fn a_token_is_good_where_the_secret_is_the_same() {
        let token = Signer::new("secret").token(&anna());
        assert_eq!(Signer::new("secret").verify(&token), Ok(anna()));
        assert!(Signer::new("other").verify(&token).is_err());
    }

    #[test]
    fn a_token_for_somebody_else_or_for_longer_is_not_good() {
        let signer = Signer::new("secret");
        let token = signer.token(&anna());
        let (_, signature) = token.rsplit_once('.').unwrap();
        let later = now() + 1_000_000;
        for forged in [token.replace("anna", "bert"), format!("anna.{later}.{signature}")] {
            assert!(signer.verify(&forged).is_err(), "{forged}");
        }
        for broken in ["", ".", "..", "anna", "anna.1.!", "anna.1"] {
            assert!(signer.verify(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_token_ends() {
        let signer = Signer::new("secret");
        let said = format!("anna.{}", now() - 1);
        let token = format!("{said}.{}", signer.sign(&format!("token {said}")));
        assert_eq!(signer.verify(&token), Err("the token is over: sign in again"));
    }

    #[test]
    fn a_name_is_a_word_of_a_topic() {
        for good in ["a", "anna-2", &"n".repeat(32)] {
            assert!(Name::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", "Anna", "a.b", "a b", "*", "ä", &"n".repeat(33)] {
            assert!(Name::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
