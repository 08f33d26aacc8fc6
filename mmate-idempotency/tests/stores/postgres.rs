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

/// S21
#[tokio::test]
async fn the_clock_is_the_databases_own() {
    let (store, _) = by_its_own_clock().await;
    let short = ClaimRequest::new(key("a"), Claimant::default(), Duration::from_millis(50));
    let Claim::Granted(grant) = store.claim(&short).await.unwrap() else { panic!() };
    let second = loop {
        let again = request("a");
        match store.claim(&again).await.unwrap() {
            Claim::Granted(second) => break Permit::new(&again, second),
            Claim::Busy { remaining } => tokio::time::sleep(remaining).await,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((second.attempt(), second.fence()), (2, grant.fence + 1));
    store.complete(&second, None).await.unwrap();
    let Claim::Duplicate(seen) = store.claim(&short).await.unwrap() else { panic!() };
    let age = SystemTime::from(seen.since).elapsed().unwrap_or_default();
    assert!(age < Duration::from_secs(60), "{age:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_may_make_a_new_table_at_once() {
    let table = unique("records");
    let mut all = JoinSet::new();
    for _ in 0..16 {
        let table = table.clone();
        all.spawn(async move {
            let store = PostgresStore::connect(&postgres_url()).await.unwrap();
            let store = store.table(table).unwrap();
            store.migrate().await.unwrap();
            matches!(store.claim(&request("a")).await.unwrap(), Claim::Granted(_))
        });
    }
    let granted = all.join_all().await;
    assert_eq!(granted.into_iter().filter(|granted| *granted).count(), 1);
}

/// The columns that a reader of the records expects, and what is in them.
#[tokio::test]
async fn records_can_be_audited_in_plain_sql() {
    let (store, table) = by_its_own_clock().await;
    let claimant =
        Claimant { service: "inventory", subscription: "reserve", instance: "inventory-1" };
    let mut asked = ClaimRequest::new(key("order-7"), claimant, LEASE);
    (asked.correlation_id, asked.message_type) = (Some("conversation"), "OrderCreated");
    let Claim::Granted(grant) = store.claim(&asked).await.unwrap() else { panic!() };
    store.complete(&Permit::new(&asked, grant), None).await.unwrap();
    let sql = format!(
        "SELECT scope, message_id, service_name, correlation_id, message_type, status,
            abs(extract(epoch FROM now() - processed_at)) < 60
        FROM {table}"
    );
    let row: (String, String, String, String, String, String, bool) =
        sqlx::query_as(AssertSqlSafe(sql)).fetch_one(&mut connection().await).await.unwrap();
    assert_eq!((row.0.as_str(), row.1.as_str(), row.2.as_str()), ("scope", "order-7", "inventory"));
    assert_eq!((row.3.as_str(), row.4.as_str()), ("conversation", "OrderCreated"));
    assert_eq!((row.5.as_str(), row.6), ("done", true));
}

#[tokio::test]
async fn a_table_of_another_shape_is_told_and_left_as_it_is() {
    let (_, good) = by_its_own_clock().await;
    let cases = [
        ("DROP COLUMN reply", "there is no column \"reply\""),
        (
            "ALTER COLUMN fence TYPE integer",
            "the column \"fence\" bigint NOT NULL is \"fence\" integer",
        ),
        (
            "ADD COLUMN tenant text NOT NULL",
            "it requires columns that are unknown here: [\"tenant\"]",
        ),
        ("ALTER COLUMN message_id TYPE text COLLATE blind", "byte by byte (\"message_id\")"),
    ];
    run("CREATE COLLATION IF NOT EXISTS blind \
         (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
        .to_owned())
    .await;
    for (change, complaint) in cases {
        let table = unique("records");
        run(format!("CREATE TABLE {table} (LIKE {good} INCLUDING ALL)")).await;
        run(format!("ALTER TABLE {table} {change}")).await;
        let store = PostgresStore::connect(&postgres_url()).await.unwrap().table(&table).unwrap();
        let error = store.migrate().await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Permanent);
        assert!(error.to_string().contains(complaint), "{error}");
        assert!(error.to_string().contains("rename it"), "{error}");
    }
    let older = unique("records");
    run(format!("CREATE TABLE {older} (message_id text PRIMARY KEY, processed_at timestamptz)"))
        .await;
    let store = PostgresStore::connect(&postgres_url()).await.unwrap().table(&older).unwrap();
    let error = store.migrate().await.unwrap_err().to_string();
    assert!(error.contains("there is no column \"scope\""), "{error}");
}

#[tokio::test]
async fn the_longest_name_is_a_table_as_any_other_and_no_name_is_a_statement() {
    let name = format!("{:x<63}", unique("records"));
    let store = PostgresStore::connect(&postgres_url()).await.unwrap().table(&name).unwrap();
    store.migrate().await.unwrap();
    store.migrate().await.unwrap();
    granted(&store, "a").await;
    let indices: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_indexes WHERE tablename = $1")
        .bind(&name)
        .fetch_one(&mut connection().await)
        .await
        .unwrap();
    assert_eq!(indices, 2);
    let error = store.table("x\"; DROP TABLE y; --").unwrap_err();
    assert!(error.to_string().contains("cannot be the name of a table"), "{error}");
}

#[tokio::test]
async fn a_search_path_puts_the_table_into_another_schema() {
    let schema = unique("schema");
    run(format!("CREATE SCHEMA {schema}")).await;
    let url = format!("{}?options[search_path]={schema}", postgres_url());
    let store = PostgresStore::connect(&url).await.unwrap();
    store.migrate().await.unwrap();
    granted(&store, "a").await;
    let sql = format!("SELECT count(*) FROM {schema}.processed_messages");
    let records: i64 =
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection().await).await.unwrap();
    assert_eq!(records, 1);
}

/// Who may not make tables can use one that is there.
#[tokio::test]
async fn a_table_that_is_there_needs_no_right_to_make_one() {
    let (_, table) = by_its_own_clock().await;
    let role = unique("role");
    run(format!(
        "CREATE ROLE {role} LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC; \
         GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {role}"
    ))
    .await;
    let url = postgres_url().replace("postgres@", &format!("{role}@"));
    let store = PostgresStore::connect(&url).await.unwrap();
    let error = store.clone().table(unique("none")).unwrap().migrate().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Permanent, "{error}");
    assert!(error.to_string().contains("permission denied"), "{error}");
    let store = store.table(&table).unwrap();
    store.migrate().await.unwrap();
    let permit = granted(&store, "a").await;
    assert_eq!(store.complete(&permit, None).await.unwrap(), Held::Yes);
    assert_eq!(store.purge(10).await.unwrap(), 0);
}

/// What no repetition mends is told from what does not answer. The password is told to nobody.
#[tokio::test]
async fn errors_say_what_they_mean_and_no_password() {
    for url in ["mysql://a:secret@localhost/b", "a:secret", "postgres://a:secret@b:c/d"] {
        let error = PostgresStore::connect(url).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Permanent, "{error}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }

    let nobody = mmate_test_support::Port::reserve().unwrap();
    let url = format!("postgres://postgres:secret@127.0.0.1:{}/postgres", nobody.number());
    let error = PostgresStore::connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error}");
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");

    let url = postgres_url().replace("postgres@", "postgres:secret@");
    let none = format!("{url}_of_no_such_name");
    let error = PostgresStore::connect(&none).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Permanent, "{error}");
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    let store = PostgresStore::connect(&url).await.unwrap();
    assert!(!format!("{store:?}").contains("secret"), "{store:?}");

    let store = store.table(unique("none")).unwrap();
    let error = store.claim(&request("a")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Permanent, "{error}");
}

/// S36, F48: what the database refuses for ever is the fault of one, and harms none of those that
/// are asked for together with it.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_key_is_refused_and_harms_no_other() {
    assert!(RecordKey::new("scope", "a\0b").is_err());
    assert!(RecordKey::new("scope", "x".repeat(256)).is_err());

    let (store, _) = by_its_own_clock().await;
    let mut all = JoinSet::new();
    for number in 0..40 {
        let store = store.clone();
        all.spawn(async move {
            // Neither fits into an index, and the second is no text.
            let noise = || fastrand::alphanumeric();
            let scope = match number {
                7 => std::iter::repeat_with(noise).take(20_000).collect(),
                19 => "a\0b".to_owned(),
                _ => "scope".to_owned(),
            };
            let key = RecordKey::new(scope, format!("{number}")).unwrap();
            let claim = store.claim(&ClaimRequest::new(key, Claimant::default(), LEASE)).await;
            (number, claim.map_err(|error| error.kind()))
        });
    }
    for (number, claim) in all.join_all().await {
        match number {
            7 | 19 => assert_eq!(claim, Err(StoreErrorKind::Permanent), "{number}"),
            _ => assert!(matches!(claim, Ok(Claim::Granted(_))), "{number}: {claim:?}"),
        }
    }
}

/// F44: who holds a record's lock in a transaction keeps those waiting who want that record, for a
/// while, and nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_record_is_busy_and_its_neighbours_are_not() {
    let (store, table) = by_its_own_clock().await;
    let held = granted(&store, "held").await;
    store.release(&held).await.unwrap();
    let mut stuck = connection().await;
    let mut stuck = stuck.begin().await.unwrap();
    let sql = format!("SELECT FROM {table} WHERE message_id = 'held' FOR UPDATE");
    sqlx::query(AssertSqlSafe(sql)).execute(&mut *stuck).await.unwrap();

    let mut all = JoinSet::new();
    for id in ["a", "held", "b", "c"] {
        let store = store.clone();
        all.spawn(async move { (id, store.claim(&request(id)).await.unwrap()) });
    }
    for (id, claim) in all.join_all().await {
        match claim {
            Claim::Busy { .. } => assert_eq!(id, "held"),
            claim => assert!(id != "held" && matches!(claim, Claim::Granted(_)), "{id}: {claim:?}"),
        }
    }
    stuck.rollback().await.unwrap();
    granted(&store, "held").await;
}

/// Two instances ask for the same keys in opposite orders, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn opposite_orders_do_not_deadlock() {
    let (store, table) = by_its_own_clock().await;
    let other = PostgresStore::connect(&postgres_url()).await.unwrap().table(&table).unwrap();
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    let before: i64 =
        sqlx::query_scalar(deadlocks).fetch_one(&mut connection().await).await.unwrap();
    let mut all = JoinSet::new();
    for (store, backwards) in [(store, false), (other, true)] {
        all.spawn(async move {
            for round in 0..30 {
                let mut ids: Vec<usize> = (0..50).collect();
                if backwards {
                    ids.reverse();
                }
                let mut calls = JoinSet::new();
                for id in ids {
                    let store = store.clone();
                    calls.spawn(async move {
                        let request = request(&format!("{round}-{id}"));
                        if let Claim::Granted(grant) = store.claim(&request).await.unwrap() {
                            let permit = Permit::new(&request, grant);
                            assert_eq!(store.heartbeat(&permit, LEASE).await.unwrap(), Held::Yes);
                            assert_eq!(store.release(&permit).await.unwrap(), Held::Yes);
                        }
                    });
                }
                calls.join_all().await;
            }
        });
    }
    all.join_all().await;
    let after: i64 =
        sqlx::query_scalar(deadlocks).fetch_one(&mut connection().await).await.unwrap();
    assert_eq!(after, before);
}

/// Each call that finds a dead connection says so, and the next one has a new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_gets_over_the_end_of_its_connections() {
    let (_, table) = by_its_own_clock().await;
    let url = format!("{}?application_name={table}", postgres_url());
    let store = PostgresStore::connect(&url).await.unwrap().table(&table).unwrap();
    let held = granted(&store, "held").await;
    let sql = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE application_name = '{table}'"
    );
    let mut failures = 0;
    for round in 0..20 {
        let ended: i64 = sqlx::query_scalar(AssertSqlSafe(sql.clone()))
            .fetch_one(&mut connection().await)
            .await
            .unwrap();
        assert!(ended > 0);
        let request = request(&format!("{round}"));
        let granted = loop {
            match store.claim(&request).await {
                Ok(claim) => break claim,
                Err(error) => {
                    assert_eq!(error.kind(), StoreErrorKind::Unknown, "{error}");
                    failures += 1;
                }
            }
        };
        assert!(matches!(granted, Claim::Granted(_)), "{granted:?}");
    }
    assert!((1..=20).contains(&failures), "{failures} failures");
    assert_eq!(store.complete(&held, None).await.unwrap(), Held::Yes);
}

/// S45: of a claim without an answer nobody knows whether it was made. It is recognised by who asks
/// again, and no other call is kept waiting by it.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_at_a_server_that_stands_still_is_in_doubt_and_recognised_afterwards() {
    let server = PostgreSql::start().unwrap();
    let store = PostgresStore::connect(&server.url()).await.unwrap();
    store.migrate().await.unwrap();
    let held = granted(&store, "held").await;
    server.pause();
    let (first, second) = (request("a"), request("b"));
    for claim in <[_; 2]>::from(tokio::join!(store.claim(&first), store.claim(&second))) {
        assert_eq!(claim.unwrap_err().kind(), StoreErrorKind::Unknown);
    }
    server.resume();
    assert_eq!(store.complete(&held, None).await.unwrap(), Held::Yes);
    for request in [first, second] {
        let claim = store.claim(&request).await.unwrap();
        let Claim::Granted(grant) = claim else { panic!("{claim:?}") };
        assert_eq!((grant.attempt, grant.taken_over), (1, false));
        assert!(matches!(
            store.claim(&self::request(request.key.id())).await,
            Ok(Claim::Busy { .. })
        ));
    }
}
