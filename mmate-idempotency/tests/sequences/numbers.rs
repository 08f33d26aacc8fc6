//! Numbers without gaps.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mmate_core::{HandlerError, InProcess, Json, Outgoing, RetryPolicy, Service, Subscription};
use mmate_idempotency::sequence::{Sequence, SequenceDatabase};
use mmate_idempotency::{Transactional, Tx};
use mmate_test_support::unique;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{Connection, Pool, Sqlite};
use tokio::task::JoinSet;

/// Eight at once, of which a part gives up: what is committed is 1, 2, 3 and so on.
async fn numbers_have_no_gap_and_are_given_out_once<DB: SequenceDatabase>(pool: Pool<DB>)
where
    for<'c> &'c mut DB::Connection: sqlx::Executor<'c, Database = DB>,
{
    let sequence = Sequence::<DB>::new(unique("chat"));
    sequence.migrate(&pool).await.unwrap();
    sequence.migrate(&pool).await.unwrap();
    let given: Arc<Mutex<Vec<i64>>> = Arc::default();
    let mut workers = JoinSet::new();
    for worker in 0..8 {
        let (pool, sequence, given) = (pool.clone(), sequence.clone(), Arc::clone(&given));
        workers.spawn(async move {
            let mut random = fastrand::Rng::with_seed(worker);
            let mut left = 25;
            while left > 0 {
                let mut connection = pool.acquire().await.unwrap();
                let Ok(mut tx) = connection.begin().await else { continue };
                // SQLite refuses one that cannot write at once; another database may see a deadlock.
                let Ok(number) = sequence.next(&mut tx, "a").await else { continue };
                if random.u8(..) < 80 {
                    tx.rollback().await.unwrap();
                    continue;
                }
                // While the row is locked nobody else notes a number.
                given.lock().unwrap().push(number);
                tx.commit().await.unwrap();
                left -= 1;
            }
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended.unwrap();
    }
    assert_eq!(*given.lock().unwrap(), (1..=200).collect::<Vec<_>>());

    let mut connection = pool.acquire().await.unwrap();
    assert_eq!(sequence.last(&mut connection, "a").await.unwrap(), 200);
    let other = Sequence::<DB>::new(unique("other"));
    for (sequence, key, expected) in [
        (&sequence, "A", 1),
        (&sequence, "a ", 1),
        (&sequence, "", 1),
        (&other, "a", 1),
        (&sequence, "a", 201),
    ] {
        assert_eq!(sequence.next(&mut connection, key).await.unwrap(), expected, "{key:?}");
    }
    for (least, expected) in [(500, 501), (3, 502)] {
        sequence.raise(&mut connection, "a", least).await.unwrap();
        assert_eq!(sequence.next(&mut connection, "a").await.unwrap(), expected);
    }
    sequence.raise(&mut connection, "new", 7).await.unwrap();
    assert_eq!(sequence.next(&mut connection, "new").await.unwrap(), 8);
    for key in ["x".repeat(256), "a\0".to_owned()] {
        let error = sequence.next(&mut connection, &key).await.unwrap_err();
        assert!(error.to_string().contains("255 bytes at most"), "{error}");
    }
    assert!(Sequence::<DB>::new("a").table("a\"; --").is_err());
}

async fn sqlite(folder: &tempfile::TempDir) -> Pool<Sqlite> {
    let options = SqliteConnectOptions::new()
        .filename(folder.path().join("numbers.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(Duration::from_secs(30));
    SqlitePoolOptions::new().max_connections(8).connect_with(options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    numbers_have_no_gap_and_are_given_out_once(sqlite(&folder).await).await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread")]
async fn on_postgresql() {
    let url = mmate_test_support::postgres_url();
    numbers_have_no_gap_and_are_given_out_once(sqlx::PgPool::connect(&url).await.unwrap()).await;
}

#[cfg(feature = "mysql")]
#[tokio::test(flavor = "multi_thread")]
async fn on_mariadb() {
    let url = mmate_test_support::mariadb_url();
    numbers_have_no_gap_and_are_given_out_once(sqlx::MySqlPool::connect(&url).await.unwrap()).await;
}

/// S24: a handler that fails gives its number back, and a duplicate takes none.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_fails_and_a_duplicate_leave_no_gap() {
    let folder = tempfile::tempdir().unwrap();
    let pool = sqlite(&folder).await;
    let sequence = Sequence::<Sqlite>::new("chat");
    sequence.migrate(&pool).await.unwrap();
    sqlx::query("CREATE TABLE said (number INTEGER, text TEXT)").execute(&pool).await.unwrap();
    let handler = move |Json(text): Json<String>,
                        mmate_core::Attempt(attempt): mmate_core::Attempt,
                        mut tx: Tx<Sqlite>| {
        let sequence = sequence.clone();
        async move {
            let number = sequence.next(&mut tx, "room").await?;
            sqlx::query("INSERT INTO said VALUES (?, ?)")
                .bind(number)
                .bind(&text)
                .execute(&mut *tx)
                .await?;
            match (text.as_str(), attempt) {
                ("flaky", 1) => Err(HandlerError::retryable("this is part of the test")),
                ("wild", 1) => panic!("this is part of the test"),
                _ => Ok(()),
            }
        }
    };
    let broker = InProcess::new();
    let subscription = Subscription::per_service("say", ["said.#"])
        .retry(RetryPolicy::fixed(Duration::from_millis(10)))
        .idempotent(Transactional::new(pool.clone()))
        .handler(handler);
    let running = Service::new("chat").subscribe(subscription).start(broker.clone()).await.unwrap();
    for round in 0..10 {
        for text in ["calm", "flaky", "wild", "calm"] {
            let message =
                Outgoing::event("said.room", "Said", text).id_text(format!("{round}-{text}"));
            running.publisher().publish(message).await.unwrap();
        }
    }
    broker.idle().await;
    let numbers: Vec<i64> = sqlx::query_scalar("SELECT number FROM said ORDER BY number")
        .fetch_all(&pool)
        .await
        .unwrap();
    assert_eq!(numbers, (1..=30).collect::<Vec<_>>());
    running.stop().await.unwrap();
}
