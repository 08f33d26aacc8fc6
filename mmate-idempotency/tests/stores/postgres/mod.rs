//! Records in PostgreSQL.

use std::time::SystemTime;

use mmate_idempotency::conformance::promises::what_is_promised_is_kept;
use mmate_idempotency::conformance::{RETENTION, within_limit};
use mmate_idempotency::protocol::{Claim, Held};
use mmate_idempotency::store::{ClaimRequest, Claimant, RecordKey, StoreErrorKind};
use mmate_idempotency::{Permit, PostgresStore};
use mmate_test_support::{PostgreSql, postgres_url, unique};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::*;

mod tables;
mod troubles;

const LEASE: Duration = Duration::from_secs(60);

/// A table of its own on a server.
struct OnPostgres {
    url: String,
    table: String,
    retention: Retention,
    clock: ManualClock,
    /// Of its own, for what harms it.
    server: Option<Mutex<PostgreSql>>,
}

impl OnPostgres {
    fn new(url: String, retention: Retention) -> Self {
        let (table, clock) = (unique("records"), ManualClock::new());
        Self { url, table, retention, clock, server: None }
    }

    async fn open(&self) -> PostgresStore {
        let store = PostgresStore::connect(&self.url).await.unwrap();
        let store = store.table(&self.table).unwrap().retention(self.retention);
        let store = store.clock(self.clock.clone());
        store.migrate().await.unwrap();
        store
    }

    async fn pool(&self, isolation: &str) -> PgPool {
        let options: PgConnectOptions = self.url.parse().unwrap();
        let options = options.options([("default_transaction_isolation", isolation)]);
        PgPoolOptions::new().max_connections(2).connect_with(options).await.unwrap()
    }
}

#[async_trait::async_trait]
impl Harness for OnPostgres {
    async fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.open().await)
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    async fn turn_back(&self, by: Duration) {
        self.clock.turn_back(by);
    }

    async fn now(&self) -> Time {
        self.clock.now()
    }

    async fn restart(&self) {
        if let Some(server) = &self.server {
            let mut server = server.lock().await;
            server.kill();
            server.start_again().unwrap();
        }
    }
}

fn harness(retention: Retention) -> OnPostgres {
    OnPostgres::new(postgres_url(), retention)
}

mmate_idempotency::store_conformance!(super::harness);

/// With a pool of two, and transactions that see nothing that was committed after they began.
mod serializable {
    use super::*;

    struct OnPool(OnPostgres);

    #[async_trait::async_trait]
    impl Harness for OnPool {
        async fn store(&self) -> Arc<dyn Store> {
            let store = PostgresStore::new(self.0.pool("serializable").await);
            let store = store.table(&self.0.table).unwrap().retention(self.0.retention);
            let store = store.clock(self.0.clock.clone());
            store.migrate().await.unwrap();
            Arc::new(store)
        }

        async fn advance(&self, by: Duration) {
            self.0.clock.advance(by);
        }

        async fn turn_back(&self, by: Duration) {
            self.0.clock.turn_back(by);
        }

        async fn now(&self) -> Time {
            self.0.clock.now()
        }
    }

    fn harness(retention: Retention) -> OnPool {
        OnPool(super::harness(retention))
    }

    mmate_idempotency::store_conformance!(super::harness);
}

/// S53: what the death of the server leaves is what was promised.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_promised_is_kept_over_the_death_of_the_server() {
    let server = PostgreSql::options().config("fsync = on").start().unwrap();
    let mut harness = OnPostgres::new(server.url(), RETENTION);
    harness.server = Some(Mutex::new(server));
    within_limit(what_is_promised_is_kept(&harness)).await;
}

fn key(id: &str) -> RecordKey {
    RecordKey::new("scope", id).unwrap()
}

fn request(id: &str) -> ClaimRequest<'static> {
    ClaimRequest::new(key(id), Claimant::default(), LEASE)
}

async fn granted(store: &PostgresStore, id: &str) -> Permit {
    let request = request(id);
    match store.claim(&request).await.unwrap() {
        Claim::Granted(grant) => Permit::new(&request, grant),
        other => panic!("{other:?}"),
    }
}

/// A store that goes by the database's clock.
async fn by_its_own_clock() -> (PostgresStore, String) {
    let table = unique("records");
    let store = PostgresStore::connect(&postgres_url()).await.unwrap().table(&table).unwrap();
    store.migrate().await.unwrap();
    (store, table)
}

async fn connection() -> PgConnection {
    let options: PgConnectOptions = postgres_url().parse().unwrap();
    options.connect().await.unwrap()
}

async fn run(sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection().await).await.unwrap();
}
