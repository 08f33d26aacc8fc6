//! The events come over RabbitMQ.

use mmate_test_support::{MariaDb, RabbitMq};

use crate::scene::{Scene, assert_stored};
use mmate_test_support::until;

/// As mmate counts it.
const DUPLICATE: &str = "outcome=\"duplicate\"";

/// On a broker of its own, since queue names are those of the example.
#[test]
fn over_rabbitmq_all_hear_one_stores_and_a_kill_loses_nothing() {
    let broker = RabbitMq::start().unwrap();
    let url = broker.url();
    let scene = Scene::new()
        .producer_options(&["--broker", &url])
        .listener_options(&["--broker", &url, "--lease", "1000"]);
    let producer = scene.producer();
    let answer = producer.post(r#"{"event_id": "a", "payload": 1}"#);
    assert_eq!(answer.status, 503, "nobody would get it: {answer:?}");
    let listeners = ["a", "b"].map(|name| scene.listener(name, &producer));
    assert!(producer.is_healthy() && listeners.iter().all(|listener| listener.is_healthy()));
    producer.publish_numbers(0..100);
    producer.publish_numbers(0..50);
    let stored_by = |listener: &crate::scene::Program| listener.outcome("stored");
    until("the events", || listeners.iter().map(stored_by).sum::<u64>() == 100);
    for listener in &listeners {
        let duplicates = || listener.metric("mmate_outcomes_total", DUPLICATE);
        until("the copies", || stored_by(listener) + duplicates() >= 150);
    }

    let [idle, lives] = listeners;
    idle.kill();
    let dies = scene.listener_with("a", &producer, &["--work-takes", "50000"]);
    // The other one may be faster.
    let mut count = 100;
    until("it works", || {
        producer.publish_numbers(count..count + 10);
        count += 10;
        dies.metric("mmate_claims_held", "") > 0
    });
    dies.kill();
    producer.publish_numbers(count..count + 50);
    count += 50;
    until("all events", || lives.stored().len() == count as usize);
    assert_stored(&lives, 0..count);
    assert!(lives.metric("mmate_claims_total", "taken-over") > 0, "of the one that was killed");
    // What was published while it was away is in its queue, and some that it had not settled.
    let back = scene.listener("a", &producer);
    until("what it missed", || back.metric("mmate_outcomes_total", DUPLICATE) >= 50);
    assert_eq!(stored_by(&back), 0);
}

#[test]
fn the_demonstration_runs_over_rabbitmq_too() {
    let broker = RabbitMq::start().unwrap();
    demonstrates(&["--broker", &broker.url()]);
}

#[test]
fn the_demonstration_runs_on_mariadb_too() {
    let database = MariaDb::start().unwrap();
    demonstrates(&["--database", &database.url(), "--store", &database.url()]);
}

fn demonstrates(options: &[&str]) {
    let scene = Scene::new();
    let output = scene.command(&["--events", "100"]).args(options).output().unwrap();
    let table = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{table}\n{told}");
    assert!(table.contains("published 125 events, 100 different ones"), "{table}");
    assert_eq!(told, "", "nothing is wrong");
}
