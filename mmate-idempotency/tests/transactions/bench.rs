//! A database, a broker, and what is in them.

use std::time::Duration;

use mmate_core::{
    Counts, Handler, InProcess, Outgoing, RetryPolicy, Running, Service, Subscription,
};
use mmate_idempotency::{Transactional, Tx};
use sqlx::{Connection, Pool};

use crate::place::Place;

/// A database with a table of effects, a parent and a child table, and a broker.
pub(crate) struct Bench<DB: Place> {
    pub(crate) broker: InProcess,
    pub(crate) pool: Pool<DB>,
    pub(crate) home: DB::Home,
}

const TABLES: &str = "CREATE TABLE effects (id TEXT);
    CREATE TABLE parents (id INTEGER PRIMARY KEY);
    CREATE TABLE children (parent INTEGER REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)";

/// How many connections the pool has.
const CONNECTIONS: u32 = 3;

impl<DB: Place> Bench<DB> {
    pub(crate) async fn new() -> Self {
        Self::at(DB::home().await).await
    }

    pub(crate) async fn at(home: DB::Home) -> Self {
        let pool = DB::pool(&home, CONNECTIONS).await;
        DB::run(&mut pool.acquire().await.unwrap(), TABLES).await.unwrap();
        Self { broker: InProcess::new(), pool, home }
    }

    pub(crate) fn strategy(&self) -> Transactional<DB> {
        Transactional::new(self.pool.clone())
    }

    pub(crate) async fn start<H: Handler<Args>, Args: 'static>(&self, handler: H) -> Running {
        self.start_with(self.strategy(), handler).await
    }

    pub(crate) async fn start_with<H: Handler<Args>, Args: 'static>(
        &self,
        strategy: Transactional<DB>,
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

    /// The number that a query answers.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        DB::number(&mut self.pool.acquire().await.unwrap(), sql).await.unwrap()
    }

    pub(crate) async fn effects(&self) -> i64 {
        self.number("SELECT count(*) FROM effects").await
    }

    pub(crate) async fn records(&self) -> i64 {
        self.number("SELECT count(*) FROM processed_messages").await
    }

    /// Every connection of the pool takes a transaction of its own: none came back with one open.
    pub(crate) async fn assert_no_connection_is_dirty(&self) {
        let mut all = Vec::new();
        for _ in 0..CONNECTIONS {
            all.push(self.pool.acquire().await.unwrap());
        }
        for connection in &mut all {
            let tx = connection.begin_with(DB::BEGIN).await.unwrap();
            tx.rollback().await.unwrap();
        }
    }
}

pub(crate) fn thing(id: &str) -> Outgoing {
    Outgoing::event("thing.made.eu", "Thing", "payload").id_text(id)
}

pub(crate) async fn effect<DB: Place>(tx: &mut Tx<DB>) -> sqlx::Result<()> {
    DB::run(tx, "INSERT INTO effects VALUES ('x')").await
}

/// Waits until nothing is left to do; the counts then.
pub(crate) async fn done<DB: Place>(bench: &Bench<DB>, running: &Running) -> Counts {
    tokio::time::timeout(Duration::from_secs(60), bench.broker.idle()).await.unwrap();
    running.stats().total()
}
