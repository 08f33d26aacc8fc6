//! For how long duplicates are recognised.

use std::time::Duration;

use crate::house::{House, counts_when, everywhere, just_the_effect, stop};

everywhere! {
    a_copy_is_suppressed_until_the_window_ends_and_runs_after_it,
}

/// S37, F51
async fn a_copy_is_suppressed_until_the_window_ends_and_runs_after_it(mut house: House) {
    let clock = house.clock();
    let running = house.instance(just_the_effect()).await;
    house.publish(running.publisher(), "a").await;
    counts_when(&[&running], |counts| counts.succeeded == 1).await;
    clock.advance(Duration::from_secs(7 * 24 * 3600 - 1));
    house.publish(running.publisher(), "a").await;
    counts_when(&[&running], |counts| counts.duplicates.total() == 1).await;
    clock.advance(Duration::from_secs(1));
    house.publish(running.publisher(), "a").await;
    counts_when(&[&running], |counts| counts.succeeded == 2).await;
    assert_eq!(house.effects_of("a").await, 2);
    stop([running]).await;
}
