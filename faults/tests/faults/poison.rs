//! Messages that no handling can help, among many that are in order.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mmate_amqp::Amqp;
use mmate_core::{HandlerError, Json, Meta, Outgoing, RetryPolicy, Service, Subscription};
use mmate_faults::within;
use mmate_idempotency::{GroupCommit, Transactional, Tx};
use mmate_test_support::{amqp_url, unique};
use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqlitePool};

/// What becomes of a handling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Task {
    Work,
    Refuse,
    Fail,
    Panic,
    Hang,
}

const MESSAGES: usize = 10_000;
const ATTEMPTS: u32 = 3;
/// One in so many is poison, of one kind after the other.
const EVERY: usize = 400;
const POISON: [Option<Task>; 5] =
    [Some(Task::Refuse), Some(Task::Fail), Some(Task::Panic), Some(Task::Hang), None];

async fn work(Json(task): Json<Task>, meta: Meta, mut tx: Tx<Sqlite>) -> Result<(), HandlerError> {
    let id = meta.id.map(|id| id.to_string());
    // Poison has an effect too, which must not stay.
    sqlx::query("INSERT INTO effects (id) VALUES (?)").bind(id).execute(&mut *tx).await?;
    match task {
        Task::Work => Ok(()),
        Task::Refuse => Err(HandlerError::permanent("nothing can help it")),
        Task::Fail => Err(HandlerError::retryable("not this time")),
        Task::Panic => panic!("as the test wants it"),
        Task::Hang => std::future::pending().await,
    }
}

async fn database(folder: &tempfile::TempDir) -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("effects.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal);
    let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
    sqlx::raw_sql("CREATE TABLE effects (id TEXT)").execute(&pool).await.unwrap();
    pool
}

/// A message, and how often it is attempted if it is poison.
fn message(topic: &str, number: usize) -> (Outgoing, Option<u32>) {
    let id = number.to_string();
    let event = |task: Option<Task>| match task {
        Some(task) => Outgoing::event(topic, "Task", &task),
        None => Outgoing::event(topic, "Task", "no task at all"),
    };
    if !number.is_multiple_of(EVERY) {
        return (event(Some(Task::Work)).id_text(&id), None);
    }
    let task = POISON[number / EVERY % POISON.len()];
    let attempts = if matches!(task, Some(Task::Refuse) | None) { 1 } else { ATTEMPTS };
    (event(task).id_text(&id), Some(attempts))
}

/// F12, F13, F33: what is refused, fails, panics, hangs or cannot be decoded is a dead letter after as many attempts as were
/// configured, and nothing else is. The process lives, and every other message has its effect once.
#[tokio::test(flavor = "multi_thread")]
async fn among_ten_thousand_exactly_the_poison_is_parked() {
    let folder = tempfile::tempdir().unwrap();
    let pool = database(&folder).await;
    let name = unique("poison");
    let broker = Amqp::new(amqp_url());
    let subscription = Subscription::per_service("tasks", [format!("{name}.#")])
        .concurrency(64)
        .timeout(Duration::from_secs(1))
        .retry(RetryPolicy::fixed(Duration::from_millis(100)).max_attempts(ATTEMPTS))
        .idempotent(Transactional::new(pool.clone()).group_commit(GroupCommit::default()))
        .handler(work);
    let running = Service::new(name.as_str()).subscribe(subscription).start(broker).await.unwrap();
    let topic = format!("{name}.made");
    let (messages, poison): (Vec<_>, Vec<_>) =
        (0..MESSAGES).map(|number| message(&topic, number)).unzip();
    let poison: BTreeMap<_, _> = (0..MESSAGES)
        .zip(poison)
        .filter_map(|(number, attempts)| Some((number.to_string(), attempts?)))
        .collect();
    let published = running.publisher().publish_all(messages).await;
    assert!(published.iter().all(Result::is_ok));
    let stats = running.stats().clone();
    within(Duration::from_secs(120), "all are settled", async || {
        let counts = stats.total();
        let settled = counts.succeeded + counts.dead_lettered;
        (settled >= MESSAGES as u64 && counts.in_flight == 0).then_some(())
    })
    .await;
    let counts = stats.total();
    assert!(counts.is_conserved(), "{counts:?}");
    let letters = running.dead_letters("tasks").unwrap().list(MESSAGES).await.unwrap();
    let parked: BTreeMap<_, _> = letters
        .iter()
        .map(|letter| (letter.message_id().unwrap().to_owned(), letter.attempts()))
        .collect();
    assert_eq!(parked, poison, "these, after so many attempts, and no innocents");
    assert_eq!(letters.len(), poison.len(), "each once");
    let effects: Vec<String> =
        sqlx::query_scalar("SELECT id FROM effects").fetch_all(&pool).await.unwrap();
    let distinct: BTreeSet<_> = effects.iter().collect();
    assert_eq!((effects.len(), distinct.len()), (MESSAGES - poison.len(), effects.len()));
    assert!(!poison.keys().any(|id| distinct.contains(id)), "no poison has an effect");
    running.stop().await.unwrap();
    println!(
        "F33: {} of {MESSAGES} are poison, and parked; {} attempts failed",
        poison.len(),
        counts.retried
    );
}
