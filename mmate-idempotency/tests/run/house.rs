//! Where the records of a test are, and work that counts its runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mmate_idempotency::store::{ManualClock, RecordKey};
use mmate_idempotency::{
    Idempotent, MemoryStore, MySqlStore, PostgresStore, RedisStore, SqliteStore, Store,
};
use mmate_test_support::{mariadb_url, postgres_url, redis_url, unique};
use tempfile::TempDir;
use tokio::sync::Semaphore;

/// A store. A further one is a line here, one in [`House::store`] and one in [`on_every_store`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    Sqlite,
    Postgres,
    MySql,
    Redis,
}

/// What the processes of one test share: its records.
pub(crate) struct House {
    kind: Kind,
    /// Of the table, or of what keys begin with, on a server that tests share.
    name: String,
    memory: MemoryStore,
    folder: TempDir,
    clock: Option<ManualClock>,
    pub(crate) runs: Runs,
}

impl House {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            name: unique("run").replace(|c: char| !c.is_ascii_alphanumeric(), "_"),
            memory: MemoryStore::new(),
            folder: tempfile::tempdir().unwrap(),
            clock: None,
            runs: Runs::default(),
        }
    }

    /// From now on stores go by this clock, which stands at the present.
    pub(crate) fn clock(&mut self) -> ManualClock {
        let clock = ManualClock::new();
        self.memory = MemoryStore::new().clock(clock.clone());
        self.clock = Some(clock.clone());
        clock
    }

    /// The store of a process: another handle on the same records.
    pub(crate) async fn store(&self) -> Arc<dyn Store> {
        /// By the clock of the test, if there is one.
        macro_rules! timed {
            ($store:expr) => {{
                let store = $store;
                Arc::new(match &self.clock {
                    Some(clock) => store.clock(clock.clone()),
                    None => store,
                })
            }};
        }
        match self.kind {
            Kind::Memory => Arc::new(self.memory.clone()),
            Kind::Sqlite => {
                timed!(SqliteStore::open(self.folder.path().join("records.db")).await.unwrap())
            }
            Kind::Postgres => {
                let store = PostgresStore::connect(&postgres_url()).await.unwrap();
                timed!(store.table(&self.name).unwrap())
            }
            Kind::MySql => {
                let store = MySqlStore::connect(mariadb_url()).await.unwrap();
                timed!(store.table(&self.name).unwrap())
            }
            Kind::Redis => {
                let store = RedisStore::connect(redis_url()).await.unwrap();
                timed!(store.prefix(&self.name).unwrap())
            }
        }
    }

    /// What a process has.
    pub(crate) async fn instance(&self) -> Idempotent {
        Idempotent::new(self.store().await)
    }
}

/// How often the work ran.
#[derive(Debug, Clone, Default)]
pub(crate) struct Runs(Arc<AtomicUsize>);

impl Runs {
    /// One more; the work's value is its number.
    pub(crate) fn next(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Work that stands at a gate until it is let through.
#[derive(Debug, Clone)]
pub(crate) struct Gate {
    entered: Arc<Semaphore>,
    go_on: Arc<Semaphore>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self { entered: Arc::new(Semaphore::new(0)), go_on: Arc::new(Semaphore::new(0)) }
    }

    /// For the work: stands here.
    pub(crate) async fn pass(&self) {
        self.entered.add_permits(1);
        self.go_on.acquire().await.unwrap().forget();
    }

    /// For the test: waits until some work stands at the gate.
    pub(crate) async fn entered(&self) {
        self.entered.acquire().await.unwrap().forget();
    }

    /// For the test: lets one through.
    pub(crate) fn open(&self) {
        self.go_on.add_permits(1);
    }
}

pub(crate) fn key(id: &str) -> RecordKey {
    RecordKey::new("scope", id).unwrap()
}

/// The error of a work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[error("{0}")]
pub(crate) struct Failure(pub(crate) String);

pub(crate) fn failure(text: &str) -> Failure {
    Failure(text.to_owned())
}

/// A lease that is not over within a test, but by a clock that is moved.
pub(crate) const LEASE: Duration = Duration::from_secs(60);

/// Makes a test of each case for every store.
macro_rules! on_every_store {
    ($($case:ident),* $(,)?) => {
        $crate::house::cases!(memory, Memory, $($case),*);
        $crate::house::cases!(sqlite, Sqlite, $($case),*);
        $crate::house::cases!(postgres, Postgres, $($case),*);
        $crate::house::cases!(mysql, MySql, $($case),*);
        $crate::house::cases!(redis, Redis, $($case),*);
    };
}

/// Makes a test of each case.
macro_rules! cases {
    ($module:ident, $kind:ident, $($case:ident),*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    let house = $crate::house::House::new($crate::house::Kind::$kind);
                    let case = super::$case(house);
                    let ended = tokio::time::timeout(std::time::Duration::from_secs(120), case).await;
                    assert!(ended.is_ok(), "the case hangs");
                }
            )*
        }
    };
}

pub(crate) use {cases, on_every_store};
