//! Versions beside each other.

use std::path::PathBuf;

use mmate_faults::Child;

use crate::{instance, on_shared_broker};

/// Four processes of an earlier version are replaced one by one, some in good order and some killed in the middle; two are
/// then put back. The new ones add a column to the table of records as soon as the first of them starts, and the old ones
/// go on beside it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the consumer of an earlier version: scripts/rolling-upgrade"]
async fn a_rolling_upgrade_and_a_step_back_lose_and_double_nothing() {
    let old =
        PathBuf::from(std::env::var_os("MMATE_OLD_CONSUMER").expect("run scripts/rolling-upgrade"));
    let new = PathBuf::from(env!("CARGO_BIN_EXE_consumer"));
    let scene = on_shared_broker("upgrade").await;
    let start = async |version: &PathBuf, name: String| {
        Child::start(version, &instance(&scene.shop, &name)).await
    };
    let mut children = Vec::new();
    for n in 0..4 {
        children.push(start(&old, format!("old-{n}")).await);
    }
    let load = scene.load().await;
    scene.flow(200).await;
    let steps = [&new, &new, &new, &new, &old, &old];
    for (n, version) in steps.into_iter().enumerate() {
        let leaving = children.remove(0);
        match n % 2 {
            0 => assert!(leaving.stop().await.is_conserved),
            _ => drop(leaving),
        }
        load.burst(100).await;
        children.push(start(version, format!("step-{n}")).await);
        scene.flow(200).await;
    }
    let books = scene.settle_up(load).await;
    scene.until_ready(0).await;
    for child in children {
        assert!(child.stop().await.is_conserved);
    }
    scene.judge(&books).await.must_be_clean("rolling upgrade");
}
