//! Which ids are the same, and which are not.

use super::Harness;
use super::stage::{Stage, assert_duplicate};
use crate::protocol::Claim;
use crate::store::{ClaimRequest, RecordKey};

/// S36, F48
pub async fn ids_that_look_alike_are_distinct(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    let long = "x".repeat(255);
    let nearly = format!("{}y", "x".repeat(254));
    let emoji = "🦀".repeat(63);
    let ids = [
        "abc",
        "ABC",
        "Abc",
        "abc ",
        " abc",
        "abc  ",
        "àbc",
        "a\u{300}bc",
        "ａbc",
        "ß",
        "ss",
        "ı",
        "i",
        "I",
        "🦀",
        "🦞",
        "0",
        "00",
        "1",
        "1.0",
        "1e0",
        "true",
        "NULL",
        "null",
        "%",
        "_",
        "a%",
        "a_",
        "a*",
        "x",
        &long,
        &nearly,
        &emoji,
    ];
    for id in ids {
        stage.done(id).await;
    }
    for id in ids {
        assert_duplicate(&stage.claim(id).await);
    }
}

/// S31, S36, F50
pub async fn scopes_are_apart_wherever_the_separator_stands(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    let pairs = [
        ("a", "b:c"),
        ("a:b", "c"),
        ("a", "b/c"),
        ("a/b", "c"),
        ("a", "bc"),
        ("ab", "c"),
        ("A", "bc"),
        ("a ", "bc"),
        ("a|b", "c"),
        ("a", "b|c"),
        ("a\u{1f}b", "c"),
    ];
    for (scope, id) in pairs {
        let scope = format!("{}/{scope}", stage.scope);
        let key = RecordKey::new(scope, id).expect("the id is usable");
        let request = ClaimRequest::new(key, super::stage::claimant(), super::stage::LEASE);
        let claim = stage.ask(&request).await;
        assert!(matches!(claim, Claim::Granted(_)), "{:?} is free, not {claim:?}", request.key);
    }
}

/// F48
pub async fn what_looks_like_a_statement_is_an_id_like_any_other(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    for id in ["'; DROP TABLE processed_messages; --", "\"", "\\", "?1", "$1", ":id", "{table}"] {
        stage.done(id).await;
        assert_duplicate(&stage.claim(id).await);
    }
}
