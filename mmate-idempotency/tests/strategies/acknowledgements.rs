//! Acknowledgements that get lost.

use mmate_core::DuplicateReason;

use crate::house::{House, counts_when, in_process, just_the_effect, stop};

in_process! {
    a_message_whose_acknowledgement_was_lost_is_acknowledged_without_running,
    a_message_whose_acknowledgement_was_lost_does_not_run_on_another_instance_either,
}

/// S6, S48
async fn a_message_whose_acknowledgement_was_lost_is_acknowledged_without_running(house: House) {
    let running = house.instance(just_the_effect()).await;
    house.broker.inner().drop_next_acks(1);
    house.publish(running.publisher(), "a").await;
    let counts = counts_when(&[&running], |counts| counts.duplicates.total() == 1).await;
    assert_eq!(
        (counts.succeeded, counts.duplicates.redelivered),
        (1, 1),
        "{:?}",
        DuplicateReason::ALL
    );
    assert_eq!(counts.settlements_lost, 1);
    assert_eq!(house.effects_of("a").await, 1);
    house.broker.inner().idle().await;
    stop([running]).await;
}

/// S6
async fn a_message_whose_acknowledgement_was_lost_does_not_run_on_another_instance_either(
    house: House,
) {
    let first = house.instance(just_the_effect()).await;
    house.broker.inner().drop_next_acks(1_000_000);
    house.publish(first.publisher(), "a").await;
    counts_when(&[&first], |counts| counts.succeeded == 1).await;
    stop([first]).await;
    house.broker.inner().drop_next_acks(0);
    let second = house.instance(just_the_effect()).await;
    let counts = counts_when(&[&second], |counts| counts.duplicates.total() == 1).await;
    assert_eq!(counts.succeeded, 0);
    assert_eq!(house.effects_of("a").await, 1);
    stop([second]).await;
}
