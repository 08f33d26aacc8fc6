//! Where the records of a test are: every store that tests run on.

use std::sync::Arc;

use mmate_idempotency::store::ManualClock;
use mmate_idempotency::{MemoryStore, MySqlStore, PostgresStore, RedisStore, SqliteStore, Store};
use mmate_test_support::{mariadb_url, postgres_url, redis_url, unique};
use tempfile::TempDir;

/// A store. A further one is a line here, one in [`Place::store`] and one in [`on_every_store`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    Sqlite,
    Postgres,
    MySql,
    Redis,
}

/// The records that the processes of one test share.
pub(crate) struct Place {
    kind: Kind,
    /// Of the table, or of what keys begin with, on a server that tests share.
    name: String,
    memory: MemoryStore,
    folder: TempDir,
    clock: Option<ManualClock>,
}

impl Place {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            name: unique("place").replace(|c: char| !c.is_ascii_alphanumeric(), "_"),
            memory: MemoryStore::new(),
            folder: tempfile::tempdir().unwrap(),
            clock: None,
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
}

/// Makes a test of each case for every store.
macro_rules! on_every_store {
    ($($case:ident),* $(,)?) => {
        $crate::place::cases!(memory, Memory, $($case),*);
        $crate::place::cases!(sqlite, Sqlite, $($case),*);
        $crate::place::cases!(postgres, Postgres, $($case),*);
        $crate::place::cases!(mysql, MySql, $($case),*);
        $crate::place::cases!(redis, Redis, $($case),*);
    };
}

/// Makes a test of each case.
macro_rules! cases {
    ($module:ident, $kind:ident, $($case:ident),*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    let house = $crate::house::House::new($crate::place::Kind::$kind);
                    let case = super::$case(house);
                    let ended = tokio::time::timeout(std::time::Duration::from_secs(120), case).await;
                    assert!(ended.is_ok(), "the case hangs");
                }
            )*
        }
    };
}

pub(crate) use {cases, on_every_store};
