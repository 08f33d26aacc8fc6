//! The store in PostgreSQL under faults.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mmate_core::{HandlerError, InProcess, Meta, Running, Service, Subscription};
use mmate_idempotency::{PostgresStore, Tracked};
use mmate_test_support::{PostgreSql, postgres_url, unique};
use sqlx::{Connection, PgConnection, Postgres};

use super::load::{counts_when, ended};
use crate::bench::thing;
use crate::place::Place;

type Effects = Arc<Mutex<Vec<String>>>;

/// A service whose effects go into a list.
async fn start(store: PostgresStore, effects: &Effects) -> Running {
    let effects = Arc::clone(effects);
    let handler = move |meta: Meta| {
        let effects = Arc::clone(&effects);
        async move {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(..10))).await;
            effects.lock().unwrap().push(meta.id.map(|id| id.to_string()).unwrap_or_default());
            Ok::<(), HandlerError>(())
        }
    };
    let subscription = Subscription::per_service("q", ["thing.#"])
        .idempotent(Tracked::new(store))
        .handler(handler);
    Service::new("s").subscribe(subscription).start(InProcess::new()).await.unwrap()
}

async fn publish(running: &Running, messages: usize) {
    for n in 0..messages {
        running.publisher().publish(thing(&format!("{n}"))).await.unwrap();
    }
}

/// No process dies, so each has one effect: what nobody knows of a call is asked again.
fn assert_one_effect_each(effects: &Effects, messages: usize) {
    let mut effects = effects.lock().unwrap().clone();
    assert_eq!(effects.len(), messages);
    effects.sort_unstable();
    effects.dedup();
    assert_eq!(effects.len(), messages);
}

/// F41
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_under_load_loses_and_doubles_nothing() {
    const MESSAGES: usize = 1500;
    let mut server = PostgreSql::options().config("fsync = on").start().unwrap();
    let store = PostgresStore::connect(&server.url()).await.unwrap();
    let effects = Effects::default();
    let running = start(store, &effects).await;
    publish(&running, MESSAGES).await;
    for killed_at in [200, 800] {
        counts_when(&running, |counts| counts.succeeded >= killed_at).await;
        server.kill();
        let before = running.stats().total().succeeded;
        server.start_again().unwrap();
        let ready = Instant::now();
        counts_when(&running, |counts| counts.succeeded > before + 20).await;
        assert!(ready.elapsed() < Duration::from_secs(3), "{:?}", ready.elapsed());
    }
    let counts = ended(&running, MESSAGES).await;
    assert_eq!((counts.retried, counts.dead_lettered), (0, 0), "{counts:?}");
    assert_one_effect_each(&effects, MESSAGES);
}

/// F43
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_ended_at_random_lose_and_double_nothing() {
    const MESSAGES: usize = 600;
    let name = unique("ended");
    let url = format!("{}?application_name={name}", postgres_url());
    let store = PostgresStore::connect(&url).await.unwrap().table(&name).unwrap();
    let effects = Effects::default();
    let running = start(store, &effects).await;
    publish(&running, MESSAGES).await;
    let end = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE application_name = '{name}'"
    );
    let mut connection = PgConnection::connect(&postgres_url()).await.unwrap();
    let (mut ended_connections, messages) = (0, u64::try_from(MESSAGES).unwrap());
    while running.stats().total().succeeded < messages {
        ended_connections += Postgres::number(&mut connection, &end).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(ended_connections > 5, "{ended_connections}");
    let counts = ended(&running, MESSAGES).await;
    assert_eq!((counts.retried, counts.dead_lettered), (0, 0), "{counts:?}");
    assert_one_effect_each(&effects, MESSAGES);
}
