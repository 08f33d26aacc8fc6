//! The store or the database is away, and comes back.

use mmate_test_support::{PostgreSql, Redis};

use crate::scene::{Program, Scene, assert_stored};
use mmate_test_support::until;

/// Two listeners, and forty events that they have stored.
fn two_at_work(scene: &Scene) -> (Program, [Program; 2]) {
    let producer = scene.producer();
    let listeners = ["a", "b"].map(|name| scene.listener(name, &producer));
    producer.publish_numbers(0..40);
    for listener in &listeners {
        until("the first events", || listener.heard() == 40);
        assert!(listener.is_healthy());
    }
    (producer, listeners)
}

/// S42, F36
#[test]
fn while_redis_is_away_nothing_is_processed_and_nothing_is_lost() {
    let mut redis = Redis::start().unwrap();
    let scene = Scene::new().listener_options(&["--store", &redis.url()]);
    let (producer, listeners) = two_at_work(&scene);
    redis.kill();
    producer.publish_numbers(40..80);
    for listener in &listeners {
        until("the health", || !listener.is_healthy());
        assert_eq!(listener.connection("store"), "down");
        assert_eq!(listener.heard(), 40);
        assert_stored(listener, 0..40);
    }
    redis.start_again().unwrap();
    for listener in &listeners {
        until("the rest", || listener.heard() == 80);
        until("the health", || listener.is_healthy());
        assert_eq!(listener.log().matches("WARN the store is").count(), 2, "{}", listener.log());
    }
    assert_stored(&listeners[0], 0..80);
    let stored = listeners.iter().map(|listener| listener.outcome("stored")).sum::<u64>();
    assert_eq!(stored, 80);
}

/// F41
#[test]
fn while_the_database_is_away_it_is_tried_again_and_nothing_is_lost() {
    let mut database = PostgreSql::start().unwrap();
    let scene = Scene::new().listener_options(&["--database", &database.url(), "--lease", "2000"]);
    let (producer, listeners) = two_at_work(&scene);
    database.kill();
    producer.publish_numbers(40..80);
    until("the health", || listeners.iter().any(|listener| !listener.is_healthy()));
    let troubled = listeners.iter().find(|listener| !listener.is_healthy()).unwrap();
    assert_eq!(troubled.connection("database"), "down");
    assert_eq!(troubled.connection("store"), "up");
    assert_eq!(troubled.page("/api/events").status, 503);
    until("a claim to be given back", || troubled.metric("mmate_runs_total", "failed") > 0);
    database.start_again().unwrap();
    for listener in &listeners {
        until("the rest", || listener.heard() == 80);
        until("the health", || listener.is_healthy());
    }
    assert_stored(&listeners[0], 0..80);
    let stored = listeners.iter().map(|listener| listener.outcome("stored")).sum::<u64>();
    assert_eq!(stored, 80);
}

/// A listener that is started before its servers waits for them.
#[test]
fn a_listener_starts_while_its_store_is_away() {
    let mut redis = Redis::start().unwrap();
    let scene = Scene::new().listener_options(&["--store", &redis.url()]);
    let producer = scene.producer();
    producer.publish_numbers(0..10);
    redis.kill();
    std::thread::scope(|scope| {
        let starting = scope.spawn(|| scene.listener("a", &producer));
        let log = || std::fs::read_to_string(scene.path("a.log")).unwrap_or_default();
        until("it says so", || log().contains("waiting for the store"));
        redis.start_again().unwrap();
        let listener = starting.join().unwrap();
        until("the events", || listener.heard() == 10);
    });
}
