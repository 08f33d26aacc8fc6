//! Listeners that are killed in the middle of their work.

use std::thread;
use std::time::{Duration, Instant};

use mmate_test_support::{PostgreSql, Redis};
use serde_json::json;
use sqlx::{Connection as _, PgConnection};
use tokio::runtime::{Builder, Runtime};

use crate::scene::{Scene, assert_stored};
use mmate_test_support::until;

/// The table, with a trigger that notes every attempt to insert: the primary key hides those that
/// were one too many.
const NOTED: &str = "
CREATE TABLE events (
    event_id TEXT PRIMARY KEY, payload TEXT NOT NULL, processed_by TEXT NOT NULL,
    processed_at_ms BIGINT NOT NULL
);
CREATE TABLE attempts (event_id TEXT NOT NULL);
CREATE FUNCTION note() RETURNS trigger AS $$
    BEGIN INSERT INTO attempts VALUES (NEW.event_id); RETURN NEW; END
$$ LANGUAGE plpgsql;
CREATE TRIGGER noted BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION note();
";

struct Noted {
    runtime: Runtime,
    connection: PgConnection,
}

impl Noted {
    fn on(database: &PostgreSql) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let connection = runtime.block_on(async {
            let mut connection = PgConnection::connect(&database.url()).await.unwrap();
            sqlx::raw_sql(NOTED).execute(&mut connection).await.unwrap();
            connection
        });
        Self { runtime, connection }
    }

    fn attempts(&mut self) -> u64 {
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM attempts");
        let count = self.runtime.block_on(count.fetch_one(&mut self.connection));
        count.unwrap().unsigned_abs()
    }
}

const CONCURRENCY: u64 = 4;

fn on(redis: &Redis, database: &PostgreSql, lease: &str) -> Scene {
    let concurrency = CONCURRENCY.to_string();
    Scene::new().listener_options(&[
        "--store",
        &redis.url(),
        "--database",
        &database.url(),
        "--lease",
        lease,
        "--concurrency",
        &concurrency,
    ])
}

/// S1, S12: and every listener hears of every event.
#[test]
fn a_thousand_events_at_four_listeners_that_are_killed_are_each_stored_once() {
    const KILLS: u32 = 8;
    let (redis, database) = (Redis::start().unwrap(), PostgreSql::start().unwrap());
    let mut noted = Noted::on(&database);
    let scene = on(&redis, &database, "1000");
    let producer = scene.producer();
    let listener = |name: &str| scene.listener_with(name, &producer, &["--work-takes", "20"]);
    let names = ["a", "b", "c", "d"];
    let mut listeners = names.map(listener);
    thread::scope(|scope| {
        scope.spawn(|| producer.publish_numbers(0..1_000));
        for kill in 1..=KILLS {
            // One after another, once each has got to work again.
            let victim = kill as usize % names.len();
            until("some more events", || noted.attempts() > u64::from(kill) * 100);
            until("it works", || listeners[victim].metric("mmate_claims_held", "") > 0);
            let next = listener(names[victim]);
            std::mem::replace(&mut listeners[victim], next).kill();
        }
    });
    for listener in &listeners {
        // What is done before the position of a listener is not shown to it again.
        until("each to have done with everything", || {
            listener.heard() > 0 && producer_is_done(&scene, names.len())
        });
    }
    assert_stored(&listeners[0], 0..1_000);
    // Run twice is at most what a killed listener had worked on.
    let twice = noted.attempts() - 1_000;
    assert!(twice <= u64::from(KILLS) * CONCURRENCY, "{twice} events were worked on twice");
}

/// Whether every listener has told that it is done with all thousand events.
fn producer_is_done(scene: &Scene, listeners: usize) -> bool {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let done = runtime.block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(scene.path("event-journal.db"))
            .read_only(true);
        let mut journal = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
        let done = "SELECT count(*) FROM positions WHERE number = 1000";
        sqlx::query_scalar::<_, i64>(done).fetch_one(&mut journal).await.unwrap()
    });
    done == i64::try_from(listeners).unwrap()
}

/// S1: without kills nothing is worked on twice, however many listeners hear of it.
#[test]
fn of_four_listeners_that_live_one_works_on_each_event() {
    let (redis, database) = (Redis::start().unwrap(), PostgreSql::start().unwrap());
    let mut noted = Noted::on(&database);
    let scene = on(&redis, &database, "30000");
    let producer = scene.producer();
    let listeners = ["a", "b", "c", "d"].map(|name| scene.listener(name, &producer));
    producer.publish_numbers(0..300);
    producer.publish_numbers(0..100);
    for listener in &listeners {
        until("each to have heard everything", || listener.heard() == 400);
    }
    let stored = listeners.iter().map(|listener| listener.outcome("stored"));
    assert_eq!(stored.sum::<u64>(), 300);
    assert_eq!(noted.attempts(), 300);
    assert_stored(&listeners[0], 0..300);
}

/// S14
#[test]
fn what_a_killed_listener_was_at_is_taken_over_after_its_lease_and_not_before() {
    let lease = Duration::from_secs(3);
    let scene = Scene::new().listener_options(&["--lease", "3000"]);
    let producer = scene.producer();
    let dies = scene.listener_with("dies", &producer, &["--work-takes", "600000"]);
    producer.publish("event", &json!(1));
    until("the claim", || dies.metric("mmate_claims_held", "") == 1);
    let lives = scene.listener_with("lives", &producer, &["--work-takes", "1"]);
    // Longer than the lease, which is prolonged for as long as it works.
    let began = Instant::now();
    until("two leases", || {
        assert_eq!(lives.heard(), 0, "it is the other one's");
        began.elapsed() > lease * 2
    });
    assert!(lives.metric("mmate_runs_total", "busy") > 0, "it has asked");
    dies.kill();
    let killed = Instant::now();
    until("the takeover", || lives.outcome("stored") == 1);
    // It was prolonged at the latest a third of it before.
    assert!(killed.elapsed() > lease / 2, "{:?}", killed.elapsed());
    assert!(killed.elapsed() < lease * 3, "{:?}", killed.elapsed());
    assert_eq!(lives.metric("mmate_claims_total", "taken-over"), 1);
    assert_eq!(lives.stored()[0]["processed_by"], "lives");
}
