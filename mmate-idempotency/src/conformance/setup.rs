//! Making what a store needs.

use tokio::task::JoinSet;

use super::Harness;
use super::stage::{Stage, assert_busy, assert_duplicate};

/// Every instance does it at its start, also all at once, and while others work.
pub async fn making_it_again_changes_nothing(harness: &impl Harness) {
    let stage = Stage::on(harness).await;
    stage.done("done").await;
    let permit = stage.granted("held").await;
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let stage = stage.again(harness).await;
        tasks.spawn(async move { stage.store.migrate().await });
    }
    while let Some(made) = tasks.join_next().await {
        made.expect("no task fails").expect("it is there already");
    }
    assert_duplicate(&stage.claim("done").await);
    assert_busy(&stage.claim("held").await);
    assert_eq!(stage.complete(&permit).await, crate::protocol::Held::Yes);
}
