//! What a listener gets that was not there, or whose producer was not.

use crate::scene::{Scene, assert_stored};
use mmate_test_support::until;

#[test]
fn a_listener_that_was_away_gets_what_it_missed_and_no_more() {
    let scene = Scene::new();
    let producer = scene.producer();
    let stays = scene.listener("stays", &producer);
    let leaves = scene.listener("leaves", &producer);
    producer.publish_numbers(0..30);
    until("the first events", || stays.heard() == 30 && leaves.heard() == 30);
    assert_eq!(leaves.terminate(), Some(0));
    producer.publish_numbers(30..50);
    until("the others", || stays.heard() == 50);
    let back = scene.listener("leaves", &producer);
    until("what it missed", || back.heard() == 20);
    assert_eq!(back.outcome("duplicate"), 20);
    // One that is new gets everything.
    let new = scene.listener("new", &producer);
    until("everything", || new.heard() == 50);
    assert_eq!((back.heard(), new.outcome("stored")), (20, 0));
}

#[test]
fn a_producer_that_is_killed_has_lost_nothing_and_its_listeners_find_it_again() {
    let scene = Scene::new();
    let producer = scene.producer();
    producer.publish_numbers(0..20);
    let address = producer.address().to_owned();
    let listener = scene.listener("a", &producer);
    producer.kill();
    until("the health", || !listener.is_healthy());
    assert_eq!(listener.connection("producer"), "down");
    let producer = scene.producer_at(&address);
    until("the health", || listener.is_healthy());
    producer.publish_numbers(20..40);
    until("the events", || listener.stored().len() == 40);
    assert_stored(&listener, 0..40);
}

/// The end of a process: what is worked on is finished, the rest is left to others.
#[test]
fn a_listener_that_is_stopped_finishes_what_it_works_on_and_begins_nothing() {
    let scene = Scene::new();
    let producer = scene.producer();
    let options = ["--work-takes", "700", "--concurrency", "3"];
    let stops = scene.listener_with("stops", &producer, &options);
    producer.publish_numbers(0..10);
    until("the work", || stops.metric("mmate_claims_held", "") == 3);
    assert_eq!(stops.terminate(), Some(0));
    // With nothing to wait for: claims that are left behind would hold for thirty seconds.
    let began = std::time::Instant::now();
    let next = scene.listener("next", &producer);
    until("all events", || next.stored().len() == 10);
    assert!(began.elapsed().as_secs() < 15, "{:?}", began.elapsed());
    let by_first = next.stored().iter().filter(|event| event["processed_by"] == "stops").count();
    assert!((3..=6).contains(&by_first), "{by_first}");
}

#[test]
fn what_is_no_longer_in_the_journal_is_told() {
    let scene = Scene::new().producer_options(&["--keep", "50"]);
    let producer = scene.producer();
    producer.publish_numbers(0..100);
    let late = scene.listener("late", &producer);
    until("what is kept", || late.heard() == 50);
    assert_stored(&late, 50..100);
    assert_eq!(producer.metric("event_processor_missed_total", ""), 50);
    assert!(producer.log().contains("no longer in the journal"), "{}", producer.log());
}
