//! The checker catches handlers that do not keep to the transaction.

use std::time::{Duration, Instant};

use mmate_core::checker::{Event, Promise, Verdict, What};
use mmate_core::{
    Context, FromContext, Handler, HandlerError, InProcess, Json, Outgoing, Publisher, RetryPolicy,
    Service, State, Subscription,
};
use mmate_idempotency::{Transactional, Tx};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{Sqlite, SqlitePool};

use crate::scene::Notes;

const MESSAGES: u64 = 100;

struct First(bool);

impl FromContext for First {
    async fn from_context(context: &Context) -> Result<Self, HandlerError> {
        Ok(Self(context.attempt() == 1))
    }
}

const EFFECT: &str = "INSERT INTO effects (id) VALUES (?)";

/// Fails now and then, after its effect and before the commit.
fn fails(id: u64, first: bool) -> Result<(), HandlerError> {
    match first && id.is_multiple_of(5) {
        true => Err(HandlerError::retryable("now and then")),
        false => Ok(()),
    }
}

async fn sound(
    Json(id): Json<u64>,
    First(first): First,
    mut tx: Tx<Sqlite>,
) -> Result<(), HandlerError> {
    sqlx::query(EFFECT).bind(format!("m{id}")).execute(&mut *tx).await?;
    fails(id, first)
}

async fn through_another_connection(
    Json(id): Json<u64>,
    First(first): First,
    State(pool): State<SqlitePool>,
    mut tx: Tx<Sqlite>,
) -> Result<(), HandlerError> {
    sqlx::query("SELECT 1").execute(&mut *tx).await?;
    sqlx::query("INSERT INTO other.effects (id) VALUES (?)")
        .bind(format!("m{id}"))
        .execute(&pool)
        .await?;
    fails(id, first)
}

/// A publisher that knows of no handler: each attempt publishes under an id of its own.
#[derive(Clone)]
struct Own(Publisher);

async fn publishes_before_the_commit(
    Json(id): Json<u64>,
    First(first): First,
    State(own): State<Own>,
    mut tx: Tx<Sqlite>,
) -> Result<(), HandlerError> {
    sqlx::query("SELECT 1").execute(&mut *tx).await?;
    own.0.publish(Outgoing::event("order.paid", "OrderPaid", &id)).await?;
    fails(id, first)
}

/// The neighbour that is told, and has the effect.
async fn neighbour(Json(id): Json<u64>, mut tx: Tx<Sqlite>) -> Result<(), HandlerError> {
    sqlx::query(EFFECT).bind(format!("m{id}")).execute(&mut *tx).await?;
    Ok(())
}

/// What the checker says of a handler, when all is handled.
async fn verdict<Args: 'static>(handler: impl Handler<Args>) -> (Verdict, Vec<Event>) {
    let begin = Instant::now();
    let (folder, broker, notes) =
        (tempfile::tempdir().unwrap(), InProcess::new(), Notes::default());
    let pool = pool(&folder.path().join("orders.db")).await;
    let other = pool_beside(&folder.path().join("other.db")).await;
    let subscribe = |name: &str, topic: &str| {
        Subscription::per_service(name, [topic])
            .retry(RetryPolicy::fixed(Duration::from_millis(5)))
            .idempotent(Transactional::new(pool.clone()))
    };
    let running = Service::new("shop")
        .state(other.clone())
        .state(Own(Publisher::connect(&broker, "own").await.unwrap()))
        .subscribe(subscribe("orders", "order.placed").handler(handler))
        .subscribe(subscribe("neighbours", "order.paid").handler(neighbour))
        .start(broker.clone())
        .await
        .unwrap();
    for id in 0..MESSAGES {
        let business_id = format!("m{id}");
        notes.put(Event::attempted(&*business_id));
        let message = Outgoing::event("order.placed", "OrderPlaced", &id).id_text(&business_id);
        running.publisher().publish(message).await.unwrap();
        notes.put(Event::confirmed(business_id));
    }
    let is_busy = |name: &&str| {
        let queue = broker.queue(name).unwrap();
        queue.ready + queue.unacked + queue.delayed > 0
    };
    while ["shop.orders", "shop.neighbours"].iter().any(is_busy) {
        assert!(begin.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    running.stop().await.unwrap();
    for (pool, table) in [(&pool, "effects"), (&other, "other.effects")] {
        let ids: Vec<String> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT id FROM {table}")))
                .fetch_all(pool)
                .await
                .unwrap();
        ids.into_iter().for_each(|id| notes.put(Event::effect(id)));
    }
    (notes.verdict(Promise::EffectOnce), notes.all())
}

async fn pool(path: &std::path::Path) -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(Duration::from_secs(10));
    let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
    sqlx::raw_sql("CREATE TABLE effects (id TEXT NOT NULL)").execute(&pool).await.unwrap();
    pool
}

/// A database of its own: SQLite has one writer for each, and a second one would only wait for the first.
async fn pool_beside(path: &std::path::Path) -> SqlitePool {
    let options = SqliteConnectOptions::new().filename(":memory:").create_if_missing(true);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let attach = format!(
        "ATTACH '{}' AS other; CREATE TABLE other.effects (id TEXT NOT NULL)",
        path.display()
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(attach)).execute(&pool).await.unwrap();
    pool
}

fn is_convicted_of_doubles((verdict, events): (Verdict, Vec<Event>)) {
    assert_eq!(verdict.double.len() as u64, MESSAGES / 5, "{verdict}");
    let histories = verdict.convict(1, &events);
    let (id, history) = histories.iter().next().unwrap();
    let effects = history.iter().filter(|event| event.what == What::Effect).count();
    assert_eq!(effects, 2, "{id}: {history:?}");
}

/// S24
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_keeps_to_the_transaction_is_not_convicted() {
    let (verdict, _) = verdict(sound).await;
    assert!(verdict.is_clean(), "{verdict}");
}

/// S24
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_writes_through_another_connection_is_convicted() {
    is_convicted_of_doubles(verdict(through_another_connection).await);
}

/// S29
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_publishes_before_the_commit_is_convicted() {
    is_convicted_of_doubles(verdict(publishes_before_the_commit).await);
}
