//! A database, a broker, and what is in them.

use std::time::Duration;

use mmate_core::{
    Counts, Handler, InProcess, Outgoing, RetryPolicy, Running, Service, Subscription,
};
use mmate_idempotency::{Transactional, Tx};
use mmate_test_support::{mariadb_url, unique};
use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
use sqlx::{ConnectOptions, Connection, MySql, MySqlConnection, MySqlPool, Row as _};

/// A database of its own with a table of effects, and a broker.
pub(crate) struct Bench {
    pub(crate) broker: InProcess,
    pub(crate) pool: MySqlPool,
    pub(crate) options: MySqlConnectOptions,
}

const CONNECTIONS: u32 = 3;

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::at(&mariadb_url()).await
    }

    /// On another server than the one that tests share.
    pub(crate) async fn at(url: &str) -> Self {
        let options: MySqlConnectOptions = url.parse().unwrap();
        let name = unique("bench");
        let mut first = options.connect().await.unwrap();
        let sql = format!("CREATE DATABASE {name}; CREATE TABLE {name}.effects (id VARCHAR(64))");
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut first).await.unwrap();
        first.close().await.unwrap();
        let options = options.database(&name);
        let pool = pool_of(&options, CONNECTIONS).await;
        Self { broker: InProcess::new(), pool, options }
    }

    /// Another instance's view of the same database: a broker and connections of its own.
    pub(crate) async fn beside(&self) -> Self {
        let pool = pool_of(&self.options, CONNECTIONS).await;
        Self { broker: InProcess::new(), pool, options: self.options.clone() }
    }

    pub(crate) fn strategy(&self) -> Transactional<MySql> {
        Transactional::new(self.pool.clone())
    }

    pub(crate) async fn start<H: Handler<Args>, Args: 'static>(&self, handler: H) -> Running {
        self.start_with(self.strategy(), handler).await
    }

    pub(crate) async fn start_with<H: Handler<Args>, Args: 'static>(
        &self,
        strategy: Transactional<MySql>,
        handler: H,
    ) -> Running {
        let subscription = Subscription::per_service("q", ["thing.#"])
            .retry(RetryPolicy::fixed(Duration::from_millis(10)).max_attempts(3))
            .idempotent(strategy)
            .handler(handler);
        let service = Service::new("s").drain_timeout(Duration::ZERO).subscribe(subscription);
        service.start(self.broker.clone()).await.unwrap()
    }

    pub(crate) async fn publish(&self, running: &Running, id: &str) {
        running.publisher().publish(thing(id)).await.unwrap();
    }

    pub(crate) async fn effects(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM effects").fetch_one(&self.pool).await.unwrap()
    }

    pub(crate) async fn records(&self) -> i64 {
        let sql = "SELECT count(*) FROM processed_messages";
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    /// How often each id had its effect.
    pub(crate) async fn effects_by_id(&self) -> Vec<i64> {
        let sql = "SELECT count(*) FROM effects GROUP BY id";
        sqlx::query_scalar(sql).fetch_all(&self.pool).await.unwrap()
    }

    /// A connection beside the pool.
    pub(crate) async fn connect(&self) -> MySqlConnection {
        self.options.connect().await.unwrap()
    }

    /// Waits until so many transactions in this database wait for a lock.
    pub(crate) async fn until_waiting(&self, count: usize) {
        let mut connection = self.connect().await;
        let waiting = async {
            while waiting(&mut connection).await < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap();
    }

    /// What is written over each connection of the pool is there for others at once: none came back
    /// with a transaction open.
    pub(crate) async fn assert_no_connection_is_dirty(&self) {
        let mut other = self.connect().await;
        sqlx::raw_sql("CREATE TABLE probes (id INT)").execute(&mut other).await.unwrap();
        let mut all = Vec::new();
        for number in 0..CONNECTIONS {
            let mut connection = self.pool.acquire().await.unwrap();
            let insert = sqlx::query("INSERT INTO probes VALUES (?)").bind(number);
            insert.execute(&mut *connection).await.unwrap();
            all.push(connection);
        }
        let seen: i64 =
            sqlx::query_scalar("SELECT count(*) FROM probes").fetch_one(&mut other).await.unwrap();
        assert_eq!(seen, i64::from(CONNECTIONS));
        sqlx::raw_sql("DROP TABLE probes").execute(&mut other).await.unwrap();
    }
}

/// How many transactions of this connection's database wait for a lock. Not by
/// `information_schema.innodb_trx`, which shows nothing new to who asks often.
async fn waiting(connection: &mut MySqlConnection) -> usize {
    let status = sqlx::raw_sql("SHOW ENGINE INNODB STATUS").fetch_one(&mut *connection);
    let status: String = status.await.unwrap().get("Status");
    let own = "SELECT CAST(id AS SIGNED) FROM information_schema.processlist WHERE db = DATABASE()";
    let own: Vec<i64> = sqlx::query_scalar(own).fetch_all(connection).await.unwrap();
    let thread = |transaction: &str| -> Option<i64> {
        let (_, rest) = transaction.split_once(" thread id ")?;
        rest.split_once(',')?.0.parse().ok()
    };
    let transactions = status.split("---TRANSACTION ");
    transactions
        .filter(|transaction| transaction.contains("\nLOCK WAIT "))
        .filter_map(thread)
        .filter(|thread| own.contains(thread))
        .count()
}

pub(crate) async fn pool_of(options: &MySqlConnectOptions, connections: u32) -> MySqlPool {
    let pool = MySqlPoolOptions::new().max_connections(connections);
    pool.connect_with(options.clone()).await.unwrap()
}

pub(crate) fn thing(id: &str) -> Outgoing {
    Outgoing::event("thing.made.eu", "Thing", "payload").id_text(id)
}

pub(crate) async fn effect(tx: &mut Tx<MySql>) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO effects VALUES ('x')").execute(&mut **tx).await.map(drop)
}

/// Waits until nothing is left to do; the counts then.
pub(crate) async fn done(bench: &Bench, running: &Running) -> Counts {
    tokio::time::timeout(Duration::from_secs(120), bench.broker.idle()).await.unwrap();
    running.stats().total()
}
