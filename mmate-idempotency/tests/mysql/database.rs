//! What is wrong with a database is told when the service starts.

use mmate_core::{HandlerError, InProcess, Service, ServiceError, Subscription};
use mmate_idempotency::store::StoreErrorKind;
use mmate_idempotency::{MemoryStore, MySqlStore, Store, Tracked, Tx};
use mmate_test_support::mariadb_url;
use sqlx::MySql;

use crate::bench::{Bench, done};

async fn start_error(subscription: Subscription) -> String {
    let started = Service::new("s").subscribe(subscription).start(InProcess::new()).await;
    match started {
        Err(error @ (ServiceError::Config(_) | ServiceError::Middleware { .. })) => {
            error.to_string()
        }
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("it started"),
    }
}

async fn nothing() -> Result<(), HandlerError> {
    Ok(())
}

#[tokio::test]
async fn a_transaction_that_nobody_gives_is_told_at_the_start_with_what_to_do() {
    let tracked = Subscription::per_service("q", ["thing.#"])
        .idempotent(Tracked::new(MemoryStore::new()))
        .handler(async |_tx: Tx<MySql>| Ok::<(), HandlerError>(()));
    let error = start_error(tracked).await;
    assert!(error.contains("takes Tx<MySql>"), "{error}");
    assert!(error.contains(".idempotent(Transactional::new(pool))"), "{error}");
}

#[tokio::test]
async fn a_table_of_another_shape_is_told_at_the_start() {
    let own = include_str!("../../migrations/mysql/0001_processed_messages.sql")
        .replace("{table}", "processed_messages");
    let cases = [
        (
            "CREATE TABLE processed_messages (message_id VARCHAR(64) PRIMARY KEY)".to_owned(),
            "there is no column \"scope\"",
        ),
        (
            own.replace("message_id     VARBINARY(255)", "message_id     VARCHAR(255)"),
            "ids would not be compared byte by byte",
        ),
        (
            own.replace("message_id     VARBINARY(255)", "message_id     VARBINARY(36)"),
            "the column \"message_id\" varbinary(255) NOT NULL, number 2 of the primary key is \
             varbinary(36) NOT NULL, number 2 of the primary key",
        ),
        (own.replace("DATETIME(3)   ", "DATETIME"), "the column \"processed_at\" datetime(3) is"),
        (own.replace("(scope, message_id)", "(message_id)"), "the column \"scope\""),
        (own.replace("InnoDB", "MyISAM"), "without InnoDB there are no transactions"),
        (
            own.replace("reply          LONGBLOB", "tenant INT NOT NULL, reply LONGBLOB"),
            "it requires columns that are unknown here: [\"tenant\"]",
        ),
    ];
    for (sql, complaint) in cases {
        let bench = Bench::new().await;
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&bench.pool).await.unwrap();
        let guarded = Subscription::per_service("q", ["thing.#"])
            .idempotent(bench.strategy())
            .handler(nothing);
        let error = start_error(guarded).await;
        assert!(error.contains(complaint), "{error}");
        assert!(error.contains("rename it"), "{error}");
        let guarded = Subscription::per_service("q", ["thing.#"])
            .idempotent(Tracked::new(MySqlStore::new(bench.pool.clone())))
            .handler(nothing);
        assert!(start_error(guarded).await.contains(complaint));
    }
}

/// What a table has beside, and has values for, is no harm.
#[tokio::test]
async fn a_table_may_have_columns_of_its_own() {
    let bench = Bench::new().await;
    let store = MySqlStore::new(bench.pool.clone());
    store.migrate().await.unwrap();
    let sql = "ALTER TABLE processed_messages ADD note TEXT, ADD region INT NOT NULL DEFAULT 1, \
               MODIFY scope VARBINARY(600) NOT NULL";
    sqlx::raw_sql(sql).execute(&bench.pool).await.unwrap();
    store.migrate().await.unwrap();
}

#[tokio::test]
async fn the_table_may_have_another_name_and_no_name_is_a_statement() {
    let bench = Bench::new().await;
    let strategy = bench.strategy().table("of_this_service").unwrap();
    let running = bench.start_with(strategy, nothing).await;
    bench.publish(&running, "a").await;
    done(&bench, &running).await;
    let records: i64 = sqlx::query_scalar("SELECT count(*) FROM of_this_service")
        .fetch_one(&bench.pool)
        .await
        .unwrap();
    assert_eq!(records, 1);
    let injected = bench.strategy().table("x`; DROP TABLE effects; --").unwrap_err();
    assert!(injected.to_string().contains("cannot be the name of a table"));
}

/// No password is in what is said, whatever is wrong.
#[tokio::test]
async fn a_database_that_lets_nobody_in_is_told_without_the_password() {
    let good: sqlx::mysql::MySqlConnectOptions = mariadb_url().parse().unwrap();
    let port = good.get_port();
    let cases = [
        (format!("mysql://mmate:hunter2@127.0.0.1:{port}/mmate"), StoreErrorKind::Permanent),
        (format!("mysql://root:hunter2@127.0.0.1:{port}/nowhere"), StoreErrorKind::Permanent),
        ("mysql://mmate:hunter2@127.0.0.1:1/mmate".to_owned(), StoreErrorKind::Unavailable),
        ("mysql://mmate:hunter2@127.0.0.1:many/mmate".to_owned(), StoreErrorKind::Permanent),
        ("mysql://mmate:hunter2@db/mmate?ssl-mode=odd".to_owned(), StoreErrorKind::Permanent),
    ];
    for (url, kind) in cases {
        let error = MySqlStore::connect(&url).await.unwrap_err();
        assert!(error.to_string().contains("failed to connect to the database"), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        assert_eq!(error.kind(), kind, "{error}");
    }
    let store = MySqlStore::connect(mariadb_url()).await.unwrap();
    assert!(!format!("{store:?}").contains("root"), "{store:?}");
}
