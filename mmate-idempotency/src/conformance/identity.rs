//! Which ids are the same, and which are not.

use super::Harness;
use super::stage::{Stage, assert_busy, assert_duplicate, assert_granted};
use crate::protocol::{Claim, Digest, Held};
use crate::store::{ClaimRequest, Permit, RecordKey};

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

/// S36
pub async fn ids_of_every_length_are_distinct(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    let ids: Vec<_> = (1..=255).step_by(2).map(|length| "x".repeat(length)).collect();
    for id in &ids {
        stage.done(id).await;
    }
    for id in &ids {
        assert_duplicate(&stage.claim(id).await);
    }
    assert_granted(&stage.claim(&"x".repeat(254)).await);
}

/// S33: each byte of a fingerprint counts.
pub async fn contents_that_differ_in_one_byte_are_a_conflict(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    let mut bytes = [0; 16];
    bytes[1..4].copy_from_slice(&[0xff, 0x80, b'\'']);
    let mut request = stage.request("a");
    request.fingerprint = Some(Digest::from_bytes(bytes));
    assert_granted(&stage.ask(&request).await);
    for at in 0..16 {
        let mut other = bytes;
        other[at] ^= 1;
        let mut request = stage.request("a");
        request.fingerprint = Some(Digest::from_bytes(other));
        assert_eq!(stage.ask(&request).await, Claim::Conflict, "byte {at}");
    }
    let mut request = stage.request("a");
    request.fingerprint = Some(Digest::from_bytes(bytes));
    assert_busy(&stage.ask(&request).await);
}

/// What is kept for who audits the records is taken as it is, and so is a subscription's name.
pub async fn names_of_any_text_are_taken_as_they_are(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    let long = "x".repeat(200);
    for (number, name) in ["o'hara\"; --", "🦀 %_\\", "", "a\nb", &long].into_iter().enumerate() {
        let id = format!("{number}");
        let mut request = stage.request(&id);
        request.claimant.service = name;
        request.claimant.subscription = name;
        request.claimant.instance = name;
        request.message_type = name;
        request.correlation_id = Some(name);
        let Claim::Granted(grant) = stage.ask(&request).await else { panic!("{name:?} is taken") };
        assert_eq!(stage.complete(&Permit::new(&request, grant)).await, Held::Yes);
        let Claim::Duplicate(seen) = stage.claim(&id).await else { panic!("a duplicate") };
        assert_eq!(&*seen.by, name);
    }
}
