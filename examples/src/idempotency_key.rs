//! The header `Idempotency-Key` for any route of axum, as the IETF's draft
//! (draft-ietf-httpapi-idempotency-key-header) says.
//!
//! | the request | the response |
//! |---|---|
//! | has no key, or an unusable one | 400 |
//! | has a key that was used for another request | 422 |
//! | comes while the first one with its key is handled | 409 with `Retry-After` |
//! | comes after it | the first one's response, with `Idempotency-Replayed: true` |
//! | comes while the store of records is away | 503 with `Retry-After`; nothing ran |
//!
//! A response of 500 and above is not kept: the next request with the key is handled. All others
//! are, also refusals such as 402: the same request would be refused again.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use mmate_core::error_chain;
use mmate_idempotency::protocol::Digest;
use mmate_idempotency::store::RecordKey;
use mmate_idempotency::{Idempotent, Ran, RunError};
use serde::{Deserialize, Serialize};

const KEY: &str = "idempotency-key";
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The largest body of a request that is read.
const BODY_LIMIT: usize = 64 * 1024;

/// What of a response is kept.
const KEPT_HEADERS: [HeaderName; 2] = [CONTENT_TYPE, LOCATION];

/// A response as it is kept. Its body is text, as JSON is.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

/// Handles each request once per client and key, for [`axum::middleware::from_fn_with_state`].
///
/// The first request is handled to its end also if its client hangs up.
pub async fn once(State(records): State<Idempotent>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let key = match record_key(&head.headers, head.uri.path()) {
        Ok(key) => key,
        Err(detail) => {
            return problem(StatusCode::BAD_REQUEST, "no usable Idempotency-Key", &detail);
        }
    };
    let Ok(body) = to_bytes(body, BODY_LIMIT).await else {
        let detail = format!("more than {BODY_LIMIT} bytes, or cut off");
        return problem(StatusCode::PAYLOAD_TOO_LARGE, "the body cannot be read", &detail);
    };
    let target = head.uri.to_string();
    let digest = Digest::of_parts([head.method.as_str().as_bytes(), target.as_bytes(), &body]);
    let handle = async move {
        let response = next.run(Request::from_parts(head, Body::from(body))).await;
        let is_final = !response.status().is_server_error();
        let kept = keep(response).await;
        if is_final { Ok(kept) } else { Err(kept) }
    };
    // Who comes while it is handled is refused at once, and may come again.
    match records.wait(Duration::ZERO).run(key, digest, handle).await {
        Ok(Ran::Fresh(kept)) | Err(RunError::Failed { error: kept, .. }) => kept.into_response(),
        Ok(Ran::Replayed(kept)) => {
            ([(REPLAYED, HeaderValue::from_static("true"))], kept).into_response()
        }
        Err(error) => refuse(&error),
    }
}

/// What a key stands for: one client's one. Whoever guesses the key of another client gets nothing
/// of theirs. What the client is known by is a secret, and only its hash is stored.
fn record_key(headers: &HeaderMap, path: &str) -> Result<RecordKey, String> {
    let client = headers.get(AUTHORIZATION).map_or(&[][..], HeaderValue::as_bytes);
    let scope = format!("{path} of {:?}", Digest::of(client));
    let header = headers.get(KEY).ok_or("there is none")?;
    let text = header.to_str().map_err(|_| "it is not ASCII")?;
    let key = unquoted(text).ok_or("a quotation mark is missing, or there is one too many")?;
    RecordKey::new(scope, key).map_err(|error| error.to_string())
}

/// A string of RFC 8941, section 3.3.3; also without its quotation marks, as many clients send it.
fn unquoted(text: &str) -> Option<String> {
    let Some(rest) = text.trim().strip_prefix('"') else {
        return Some(text.trim().to_owned()).filter(|key| !key.contains('"'));
    };
    let (mut key, mut characters) = (String::new(), rest.chars());
    loop {
        match characters.next()? {
            '"' => return characters.next().is_none().then_some(key),
            '\\' => key.push(characters.next().filter(|next| matches!(next, '"' | '\\'))?),
            other => key.push(other),
        }
    }
}

/// Nothing of an error's own text is sent.
fn refuse(error: &RunError<Kept>) -> Response {
    let (status, title, detail) = match error {
        RunError::Conflict { .. } => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "the Idempotency-Key was used for another request",
            "another request needs a key of its own",
        ),
        RunError::Busy { .. } => (
            StatusCode::CONFLICT,
            "a request with this Idempotency-Key is being handled",
            "the same request may be sent again, and then gets the response to that one",
        ),
        RunError::Store { .. } => (
            StatusCode::SERVICE_UNAVAILABLE,
            "it cannot be told whether this was done before",
            "nothing was done; the same request may be sent again",
        ),
        _ => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "the response to this request is not known",
            "it may have been done",
        ),
    };
    if status.is_server_error() {
        tracing::warn!(?error, "a request has no response");
    }
    let mut response = problem(status, title, detail);
    if matches!(status, StatusCode::CONFLICT | StatusCode::SERVICE_UNAVAILABLE) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// RFC 9457
fn problem(status: StatusCode, title: &str, detail: &str) -> Response {
    let body = serde_json::json!({"title": title, "status": status.as_u16(), "detail": detail});
    (status, [(CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}

async fn keep(response: Response) -> Kept {
    let (head, body) = response.into_parts();
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    let headers = KEPT_HEADERS
        .iter()
        .filter_map(|name| Some((name.as_str().to_owned(), text(head.headers.get(name)?)?)));
    let headers = headers.collect();
    match to_bytes(body, usize::MAX).await.map(|bytes| String::from_utf8(bytes.into())) {
        Ok(Ok(body)) => Kept { status: head.status.as_u16(), headers, body },
        other => {
            let error = match other {
                Err(error) => error_chain(&error),
                Ok(_) => "it is no text".to_owned(),
            };
            tracing::error!(error, "the body of a response cannot be kept");
            Kept { status: 500, headers: Vec::new(), body: String::new() }
        }
    }
}

impl IntoResponse for Kept {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        for (name, value) in self.headers {
            if let (Ok(name), Ok(value)) =
                (HeaderName::try_from(name), HeaderValue::try_from(value))
            {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_string_with_or_without_its_quotation_marks() {
        assert_eq!(unquoted(r#""8e03978e-40d5""#).as_deref(), Some("8e03978e-40d5"));
        assert_eq!(unquoted(" 8e03978e-40d5 ").as_deref(), Some("8e03978e-40d5"));
        assert_eq!(unquoted(r#""a \"b\" \\""#).as_deref(), Some(r#"a "b" \"#));
        for wrong in [r#""a"#, r#"a""#, r#""a"b"#, r#""a\n""#, r#"""""#] {
            assert_eq!(unquoted(wrong), None, "{wrong}");
        }
    }
}
