//! A service under test: its strategy, its broker, its effects.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use mmate_core::{
    Attempt, Counts, HandlerError, Json, Meta, Outcome, Outgoing, Publisher, RetryPolicy, Running,
    Service, Subscription, SubscriptionBuilder,
};
use mmate_idempotency::store::ManualClock;
use mmate_idempotency::{MemoryStore, Store, Tracked};
use mmate_test_support::unique;
use tempfile::TempDir;

use crate::broker::Broker;
use crate::databases::{By, Database, Handling, OnMySql, OnPostgres, OnSqlite};
use crate::effects::{Effect, Inside, Probe};

/// A strategy, and where its records are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    strategy: Strategy,
    records: Records,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strategy {
    Tracked,
    Transactional,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Records {
    Memory,
    Sqlite,
    Postgres,
    MySql,
}

impl Kind {
    pub(crate) const fn new(strategy: Strategy, records: Records) -> Self {
        Self { strategy, records }
    }

    /// Whether the effects are in the database, within the transaction of their record.
    pub(crate) fn is_transactional(self) -> bool {
        self.strategy == Strategy::Transactional
    }

    /// Whether handlers run one after the other.
    pub(crate) fn has_one_writer(self) -> bool {
        self == Self::new(Strategy::Transactional, Records::Sqlite)
    }
}

/// A handler's visit of one message.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    pub(crate) id: String,
    pub(crate) phase: Phase,
}

/// Where the handler is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    BeforeEffect,
    AfterEffect,
}

/// What the handler does beside its effect. After an error there is no effect.
pub(crate) type Script =
    Arc<dyn Fn(Visit) -> BoxFuture<'static, Result<Outcome, HandlerError>> + Send + Sync>;

pub(crate) fn script<F, Fut>(function: F) -> Script
where
    F: Fn(Visit) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Outcome, HandlerError>> + Send + 'static,
{
    Arc::new(move |visit| Box::pin(function(visit)))
}

/// The effect and nothing else.
pub(crate) fn just_the_effect() -> Script {
    script(async |_| Ok(Outcome::Done))
}

/// What the tests of one case have in common.
pub(crate) struct House {
    pub(crate) kind: Kind,
    pub(crate) broker: Broker,
    pub(crate) service: String,
    pub(crate) inside: Inside,
    listed: Arc<Mutex<Vec<Effect>>>,
    memory: MemoryStore,
    /// Absent if records are in memory.
    database: Option<Box<dyn Database>>,
    clock: Option<ManualClock>,
    folder: TempDir,
}

impl House {
    pub(crate) async fn new(kind: Kind, broker: Broker) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database: Option<Box<dyn Database>> = match kind.records {
            Records::Memory => None,
            Records::Sqlite => Some(Box::new(OnSqlite::at(file_in(&folder)))),
            Records::Postgres => Some(Box::new(OnPostgres::new())),
            Records::MySql => Some(Box::new(OnMySql::new())),
        };
        if let Some(database) = &database {
            database.prepare().await;
        }
        Self {
            kind,
            broker,
            service: unique("house"),
            inside: Inside::default(),
            listed: Arc::default(),
            memory: MemoryStore::new(),
            database,
            clock: None,
            folder,
        }
    }

    /// From now on stores go by this clock, which stands at the present.
    pub(crate) fn clock(&mut self) -> ManualClock {
        self.go_by(ManualClock::new())
    }

    /// From now on stores go by this clock.
    pub(crate) fn go_by(&mut self, clock: ManualClock) -> ManualClock {
        self.memory = MemoryStore::new().clock(clock.clone());
        self.clock = Some(clock.clone());
        clock
    }

    /// The database file, if records are in SQLite.
    pub(crate) fn sqlite(&self) -> OnSqlite {
        OnSqlite::at(file_in(&self.folder))
    }

    /// The database that records are in.
    pub(crate) fn database(&self) -> &dyn Database {
        self.database.as_deref().expect("the records are in a database")
    }

    /// The store of a process: another handle on the same records.
    pub(crate) async fn store(&self) -> Arc<dyn Store> {
        match &self.database {
            Some(database) => database.store(self.clock.as_ref()).await,
            None => Arc::new(self.memory.clone()),
        }
    }

    pub(crate) fn topic(&self) -> String {
        format!("thing.{}.eu", self.service)
    }

    pub(crate) fn builder(&self) -> SubscriptionBuilder {
        Subscription::per_service("q", [self.topic()])
            .retry(RetryPolicy::fixed(Duration::from_millis(20)))
    }

    pub(crate) fn queue(&self) -> String {
        format!("{}.q", self.service)
    }

    pub(crate) fn is_transactional(&self) -> bool {
        self.kind.is_transactional()
    }

    /// The strategy of a process, for `Tracked`.
    pub(crate) async fn tracked(&self) -> Tracked {
        Tracked::new(self.store().await)
    }

    /// The builder with the strategy of this house, and a handler with this script.
    pub(crate) async fn guard(&self, builder: SubscriptionBuilder, script: Script) -> Subscription {
        self.guard_with(builder, script, By::default(), |tracked| tracked).await
    }

    /// The builder with the strategy of this house.
    pub(crate) async fn guarded(
        &self,
        builder: SubscriptionBuilder,
        by: By,
    ) -> SubscriptionBuilder {
        if self.kind.is_transactional() {
            return self.database().guarded(builder, by, self.clock.as_ref()).await;
        }
        builder.idempotent(by.tracked(self.tracked().await))
    }

    /// The builder with the strategy and options, and a handler with this script.
    pub(crate) async fn guard_with(
        &self,
        builder: SubscriptionBuilder,
        script: Script,
        by: By,
        tracked: impl FnOnce(Tracked) -> Tracked,
    ) -> Subscription {
        if self.kind.is_transactional() {
            let handling = Handling { script, inside: self.inside.clone() };
            let database = self.database();
            return database.transactional(builder, by, self.clock.as_ref(), handling).await;
        }
        let strategy = by.tracked(tracked(self.tracked().await));
        builder.idempotent(strategy).handler(self.listing(script))
    }

    /// A handler whose effects go into a list.
    pub(crate) fn listing(
        &self,
        script: Script,
    ) -> impl Fn(Meta, Attempt, Json<Probe>) -> BoxFuture<'static, Result<Outcome, HandlerError>>
    + Send
    + Sync
    + 'static {
        let (listed, inside) = (Arc::clone(&self.listed), self.inside.clone());
        move |meta, Attempt(attempt), _probe| {
            let (script, listed) = (Arc::clone(&script), Arc::clone(&listed));
            let id = meta.id.map(|id| id.to_string()).unwrap_or_default();
            let entered = inside.enter(&id);
            Box::pin(async move {
                let _entered = entered;
                let visit = |phase| Visit { id: id.clone(), phase };
                let outcome = script(visit(Phase::BeforeEffect)).await?;
                if outcome != Outcome::Done {
                    return Ok(outcome);
                }
                listed.lock().unwrap().push(Effect { id: id.clone(), attempt });
                script(visit(Phase::AfterEffect)).await
            })
        }
    }

    /// Starts an instance of the service with these subscriptions.
    pub(crate) async fn start(
        &self,
        subscriptions: impl IntoIterator<Item = Subscription>,
    ) -> Running {
        let mut service = Service::new(self.service.as_str()).instance(unique("i"));
        for subscription in subscriptions {
            service = service.subscribe(subscription);
        }
        service.drain_timeout(Duration::from_secs(10)).start(self.broker.clone()).await.unwrap()
    }

    /// An instance with one subscription as everybody has it.
    pub(crate) async fn instance(&self, script: Script) -> Running {
        let subscription = self.guard(self.builder(), script).await;
        self.start([subscription]).await
    }

    pub(crate) fn message(&self, id: &str) -> Outgoing {
        self.message_with(id, "payload")
    }

    pub(crate) fn message_with(&self, id: &str, text: &str) -> Outgoing {
        Outgoing::event(self.topic(), "Thing", &Probe(text.to_owned())).id_text(id)
    }

    pub(crate) async fn publish(&self, publisher: &Publisher, id: &str) {
        publisher.publish(self.message(id)).await.unwrap();
    }

    /// All effects that took place.
    pub(crate) async fn effects(&self) -> Vec<Effect> {
        if self.kind.is_transactional() {
            self.database().effects().await
        } else {
            self.listed.lock().unwrap().clone()
        }
    }

    pub(crate) async fn effects_of(&self, id: &str) -> usize {
        self.effects().await.iter().filter(|effect| effect.id == id).count()
    }
}

fn file_in(folder: &TempDir) -> PathBuf {
    folder.path().join("house.db")
}

/// How long a test waits for what must come.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits until the counts of these services together are as wanted, and returns them. At every look
/// they are conserved (S47).
pub(crate) async fn counts_when(running: &[&Running], wanted: impl Fn(&Counts) -> bool) -> Counts {
    let began = std::time::Instant::now();
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

/// Stops services, each within its drain.
pub(crate) async fn stop(running: impl IntoIterator<Item = Running>) {
    for one in running {
        one.stop().await.unwrap();
    }
}

/// Makes a test of each case for every strategy, store and transport.
macro_rules! everywhere {
    ($($case:ident),* $(,)?) => {
        $crate::house::cases!(tracked_in_memory, Tracked, Memory, in_process, $($case),*);
        $crate::house::cases!(tracked_in_sqlite, Tracked, Sqlite, in_process, $($case),*);
        $crate::house::cases!(tracked_in_postgres, Tracked, Postgres, in_process, $($case),*);
        $crate::house::cases!(transactional_on_sqlite, Transactional, Sqlite, in_process, $($case),*);
        $crate::house::cases!(transactional_on_postgres, Transactional, Postgres, in_process, $($case),*);
        $crate::house::cases!(tracked_in_mysql, Tracked, MySql, in_process, $($case),*);
        $crate::house::cases!(transactional_on_mysql, Transactional, MySql, in_process, $($case),*);
        $crate::house::cases!(tracked_in_memory_on_rabbitmq, Tracked, Memory, rabbitmq, $($case),*);
        $crate::house::cases!(tracked_in_sqlite_on_rabbitmq, Tracked, Sqlite, rabbitmq, $($case),*);
        $crate::house::cases!(tracked_in_postgres_on_rabbitmq, Tracked, Postgres, rabbitmq, $($case),*);
        $crate::house::cases!(transactional_on_sqlite_on_rabbitmq, Transactional, Sqlite, rabbitmq, $($case),*);
        $crate::house::cases!(transactional_on_postgres_on_rabbitmq, Transactional, Postgres, rabbitmq, $($case),*);
    };
}

/// Makes a test of each case for `Tracked` on every store and transport.
macro_rules! wherever_tracked {
    ($($case:ident),* $(,)?) => {
        $crate::house::cases!(tracked_in_memory_only, Tracked, Memory, in_process, $($case),*);
        $crate::house::cases!(tracked_in_sqlite_only, Tracked, Sqlite, in_process, $($case),*);
        $crate::house::cases!(tracked_in_postgres_only, Tracked, Postgres, in_process, $($case),*);
        $crate::house::cases!(tracked_in_mysql_only, Tracked, MySql, in_process, $($case),*);
        $crate::house::cases!(tracked_in_memory_only_on_rabbitmq, Tracked, Memory, rabbitmq, $($case),*);
        $crate::house::cases!(tracked_in_sqlite_only_on_rabbitmq, Tracked, Sqlite, rabbitmq, $($case),*);
        $crate::house::cases!(tracked_in_postgres_only_on_rabbitmq, Tracked, Postgres, rabbitmq, $($case),*);
    };
}

/// Makes a test of each case for every strategy and store, on the broker that does what it is told.
macro_rules! in_process {
    ($($case:ident),* $(,)?) => {
        $crate::house::cases!(tracked_in_memory_in_process, Tracked, Memory, in_process, $($case),*);
        $crate::house::cases!(tracked_in_sqlite_in_process, Tracked, Sqlite, in_process, $($case),*);
        $crate::house::cases!(tracked_in_postgres_in_process, Tracked, Postgres, in_process, $($case),*);
        $crate::house::cases!(transactional_on_sqlite_in_process, Transactional, Sqlite, in_process, $($case),*);
        $crate::house::cases!(transactional_on_postgres_in_process, Transactional, Postgres, in_process, $($case),*);
        $crate::house::cases!(tracked_in_mysql_in_process, Tracked, MySql, in_process, $($case),*);
        $crate::house::cases!(transactional_on_mysql_in_process, Transactional, MySql, in_process, $($case),*);
    };
}

/// Makes a test of each case.
macro_rules! cases {
    ($module:ident, $strategy:ident, $records:ident, $broker:ident, $($case:ident),*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    use $crate::house::{House, Kind, Records, Strategy};

                    let broker = $crate::broker::Broker::$broker();
                    let kind = Kind::new(Strategy::$strategy, Records::$records);
                    let case = super::$case(House::new(kind, broker).await);
                    let ended = tokio::time::timeout(std::time::Duration::from_secs(120), case).await;
                    assert!(ended.is_ok(), "the case hangs");
                }
            )*
        }
    };
}

pub(crate) use {cases, everywhere, in_process, wherever_tracked};
