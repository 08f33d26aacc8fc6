//! Whether a store keeps what it promises.

use super::Harness;
use super::stage::{Stage, assert_busy, assert_duplicate};

/// S53: a store that promises too much fails. What is in progress is never forgotten (S41).
pub async fn what_is_promised_is_kept(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    let promises = stage.store.promises();
    stage.done("first").await;
    stage.granted("held").await;
    if promises.shared {
        let other = stage.again(harness).await;
        assert_duplicate(&other.claim("first").await);
        assert_busy(&other.claim("held").await);
    }
    for number in 0..2_000 {
        stage.done(&format!("{number}")).await;
    }
    assert_busy(&stage.claim("held").await);
    if promises.complete {
        assert_duplicate(&stage.claim("first").await);
    }
    if promises.durable {
        harness.restart().await;
        let after = stage.again(harness).await;
        assert_duplicate(&after.claim("first").await);
        assert_busy(&after.claim("held").await);
    }
}
