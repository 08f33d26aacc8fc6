//! A database that tells of its commits, a broker, and a service with group commit.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use mmate_core::{
    Attempt, Counts, HandlerError, Meta, Outcome, Outgoing, Publisher, RetryPolicy, Running,
    Service, Subscription, SubscriptionBuilder,
};
use mmate_idempotency::{GroupCommit, Transactional, Tx};
use mmate_test_support::unique;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{Connection, Sqlite, SqlitePool};
use tempfile::TempDir;

use crate::broker::Broker;

/// What is done at a moment within SQLite, on its thread.
type Hook = Arc<dyn Fn() + Send + Sync>;

/// What is done at each changed row, and before each commit.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    change: Arc<Mutex<Option<Hook>>>,
    commit: Arc<Mutex<Option<Hook>>>,
}

impl Hooks {
    pub(crate) fn at_each_change(&self, hook: impl Fn() + Send + Sync + 'static) {
        *self.change.lock().unwrap() = Some(Arc::new(hook));
    }

    pub(crate) fn before_each_commit(&self, hook: impl Fn() + Send + Sync + 'static) {
        *self.commit.lock().unwrap() = Some(Arc::new(hook));
    }

    fn run(hook: &Mutex<Option<Hook>>) {
        let hook = hook.lock().unwrap().clone();
        if let Some(hook) = hook {
            hook();
        }
    }
}

/// A visit of a handler: the message's id, the attempt, and which run of this id it is, from 1.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    pub(crate) id: String,
    pub(crate) attempt: u32,
    pub(crate) run: usize,
}

/// What a handler does after its effect.
pub(crate) type Act = Arc<
    dyn Fn(Visit, Tx<Sqlite>) -> BoxFuture<'static, Result<Outcome, HandlerError>> + Send + Sync,
>;

pub(crate) fn act<F, Fut>(function: F) -> Act
where
    F: Fn(Visit, Tx<Sqlite>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Outcome, HandlerError>> + Send + 'static,
{
    Arc::new(move |visit, tx| Box::pin(function(visit, tx)))
}

/// The effect and nothing else.
pub(crate) fn just_the_effect() -> Act {
    act(async |_, _| Ok(Outcome::Done))
}

/// A database file with a table of effects, a broker, and the handlers that ran.
pub(crate) struct Bench {
    pub(crate) broker: Broker,
    pub(crate) service: String,
    pub(crate) pool: SqlitePool,
    pub(crate) hooks: Hooks,
    /// The ids of the messages whose handlers ran, in their order.
    pub(crate) runs: Arc<Mutex<Vec<String>>>,
    pub(crate) folder: TempDir,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        Self::on(Broker::in_process()).await
    }

    pub(crate) async fn on(broker: Broker) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hooks = Hooks::default();
        let pool = pool_of(folder.path(), 4, &hooks).await;
        let sql = "CREATE TABLE effects (place INTEGER PRIMARY KEY, id TEXT, attempt INTEGER);
            CREATE TABLE parents (id INTEGER PRIMARY KEY);
            CREATE TABLE children (
                parent INTEGER REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED
            )";
        sqlx::raw_sql(sql).execute(&pool).await.unwrap();
        Self { broker, service: unique("group"), pool, hooks, runs: Arc::default(), folder }
    }

    pub(crate) fn queue(&self) -> String {
        format!("{}.q", self.service)
    }

    pub(crate) fn builder(&self) -> SubscriptionBuilder {
        Subscription::per_service("q", [format!("{}.#", self.service)])
            .retry(RetryPolicy::fixed(Duration::from_millis(10)).max_attempts(2))
            .concurrency(32)
    }

    pub(crate) fn strategy(&self, options: GroupCommit) -> Transactional<Sqlite> {
        Transactional::new(self.pool.clone()).group_commit(options)
    }

    /// A handler that has its effect, and then does this.
    pub(crate) fn handler(
        &self,
        act: Act,
    ) -> impl Fn(Meta, Attempt, Tx<Sqlite>) -> BoxFuture<'static, Result<Outcome, HandlerError>>
    + Send
    + Sync
    + 'static {
        let runs = Arc::clone(&self.runs);
        move |meta, Attempt(attempt), mut tx| {
            let id = meta.id.map(|id| id.to_string()).unwrap_or_default();
            let run = {
                let mut runs = runs.lock().unwrap();
                runs.push(id.clone());
                runs.iter().filter(|one| **one == id).count()
            };
            let act = Arc::clone(&act);
            Box::pin(async move {
                sqlx::query("INSERT INTO effects (id, attempt) VALUES (?, ?)")
                    .bind(&id)
                    .bind(attempt)
                    .execute(&mut *tx)
                    .await?;
                act(Visit { id, attempt, run }, tx).await
            })
        }
    }

    pub(crate) async fn start(&self, options: GroupCommit, act: Act) -> Running {
        let subscription =
            self.builder().idempotent(self.strategy(options)).handler(self.handler(act));
        self.start_with(subscription, Duration::from_secs(20)).await
    }

    pub(crate) async fn start_with(&self, subscription: Subscription, drain: Duration) -> Running {
        let service = Service::new(self.service.as_str()).instance(unique("i"));
        let service = service.drain_timeout(drain).subscribe(subscription);
        service.start(self.broker.clone()).await.unwrap()
    }

    pub(crate) fn message(&self, id: &str) -> Outgoing {
        Outgoing::event(format!("{}.made", self.service), "Thing", "payload").id_text(id)
    }

    pub(crate) async fn publish(&self, publisher: &Publisher, ids: &[&str]) {
        for id in ids {
            publisher.publish(self.message(id)).await.unwrap();
        }
    }

    /// The ids of all effects, in the order in which they took place.
    pub(crate) async fn effects(&self) -> Vec<String> {
        let sql = "SELECT id FROM effects ORDER BY place";
        sqlx::query_scalar(sql).fetch_all(&self.pool).await.unwrap()
    }

    /// The ids of what is done, sorted; nothing else has a record.
    pub(crate) async fn records(&self) -> Vec<String> {
        let sql = "SELECT message_id, status FROM processed_messages ORDER BY message_id";
        let rows: Vec<(String, String)> = sqlx::query_as(sql).fetch_all(&self.pool).await.unwrap();
        assert!(rows.iter().all(|(_, status)| status == "done"), "{rows:?}");
        rows.into_iter().map(|(id, _)| id).collect()
    }

    /// How often the handler of each message ran.
    pub(crate) fn runs_of_each(&self) -> HashMap<String, usize> {
        let mut counts = HashMap::new();
        for id in self.runs.lock().unwrap().iter() {
            *counts.entry(id.clone()).or_default() += 1;
        }
        counts
    }

    /// Every connection of the pool takes a transaction of its own: none came back with one open.
    pub(crate) async fn assert_no_connection_is_dirty(&self) {
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(self.pool.acquire().await.unwrap());
        }
        for connection in &mut all {
            let tx = connection.begin_with("BEGIN IMMEDIATE").await.unwrap();
            tx.rollback().await.unwrap();
        }
    }
}

/// A pool as a user makes one, whose connections have the hooks.
pub(crate) async fn pool_of(folder: &Path, connections: u32, hooks: &Hooks) -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename(folder.join("bench.db"))
        .create_if_missing(true)
        .busy_timeout(Duration::from_secs(30))
        .journal_mode(SqliteJournalMode::Wal);
    let hooks = hooks.clone();
    SqlitePoolOptions::new()
        .max_connections(connections)
        .after_connect(move |connection, _| {
            let hooks = hooks.clone();
            Box::pin(async move {
                let mut handle = connection.lock_handle().await?;
                let (change, commit) = (hooks.change, hooks.commit);
                handle.set_update_hook(move |_| Hooks::run(&change));
                handle.set_commit_hook(move || {
                    Hooks::run(&commit);
                    true
                });
                Ok(())
            })
        })
        .connect_with(options)
        .await
        .unwrap()
}

const LIMIT: Duration = Duration::from_secs(60);

/// Waits until the counts of these services together are as wanted. At every look they are conserved
/// (S47).
pub(crate) async fn counts_when(running: &[&Running], wanted: impl Fn(&Counts) -> bool) -> Counts {
    let began = Instant::now();
    loop {
        let counts: Counts = running.iter().map(|one| one.stats().total()).sum();
        assert!(counts.is_conserved(), "{counts:?}");
        if wanted(&counts) {
            return counts;
        }
        assert!(began.elapsed() < LIMIT, "it did not come to it: {counts:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// How many deliveries found their end, so that the broker does not show them again by our will.
pub(crate) fn ended(counts: &Counts) -> u64 {
    counts.succeeded
        + counts.duplicates.total()
        + counts.dead_lettered
        + counts.conflicts
        + counts.unprotected
}
