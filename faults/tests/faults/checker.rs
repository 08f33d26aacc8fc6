//! A checker that passes what is wrong makes every other result void.

use std::time::Instant;

use crate::{behind_proxy, on_shared_broker};

/// Without a strategy, what is handled and not acknowledged when its connection ends takes effect twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_a_strategy_does_not_pass() {
    let (mut scene, proxy) = behind_proxy("unprotected").await;
    scene.shop.is_idempotent = false;
    let running = scene.shop.start().await;
    let load = scene.load_from_elsewhere().await;
    for _ in 0..5 {
        scene.flow(50).await;
        // Handled, and the acknowledgements get lost.
        proxy.hold(mmate_faults::Direction::ToBroker, true);
        scene.flow(20).await;
        proxy.cut();
        proxy.hold(mmate_faults::Direction::ToBroker, false);
    }
    let books = scene.settle_up(load).await;
    scene.stop(running).await;
    let verdict = scene.judge(&books).await;
    assert!(!verdict.double.is_empty() && !verdict.is_clean(), "{verdict}");
    assert!(verdict.lost.is_empty(), "{verdict}");
}

/// What is not in the effects in the end is told as lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_taken_away_is_missed() {
    let scene = on_shared_broker("taken").await;
    scene.shop.start().await.stop().await.unwrap();
    let load = scene.load().await;
    let begin = Instant::now();
    while load.mark() < 40 {
        assert!(begin.elapsed().as_secs() < 30);
        tokio::task::yield_now().await;
    }
    let books = load.stop().await;
    assert!(books.owed().count() >= 40);
    let taken = scene.witness().await.take_all(&scene.shop.queue()).await;
    let verdict = scene.judge(&books).await;
    assert_eq!(verdict.lost.len(), taken.len(), "{verdict}");
    assert!(!verdict.is_clean());
}
