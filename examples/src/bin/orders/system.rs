//! The running system: the service's instances, a publisher, and the wait until all is done.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use mmate_core::{Counts, Publisher, Running, Service, SubscriptionBuilder, Topology, Transport};
use mmate_examples::database::Statements;
use mmate_idempotency::{
    GroupCommit, MemoryStore, MySqlStore, PostgresStore, RedisStore, SqliteStore, Tracked,
    Transactional,
};
use sqlx::{Pool, SqlitePool};
use tempfile::TempDir;

use crate::check::{self, DeadLetters};
use crate::database::{Database, RECORDS};
use crate::input::Ledger;
use crate::options::{Failure, Options, StoreChoice, StrategyChoice};
use crate::shop;

/// The service's name, which its queues begin with.
const SERVICE: &str = "shop";

/// How long nothing must happen before all counts as done.
const QUIET: Duration = Duration::from_millis(600);

pub(crate) struct System {
    publisher: Publisher,
    instances: Vec<Running>,
    database: Database,
    _temporary: Option<TempDir>,
}

impl System {
    pub(crate) async fn start(
        options: &Options,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, Failure> {
        let (database, temporary) = open(options).await?;
        let mut instances = Vec::new();
        let mut start = async |services: Vec<Service>| -> Result<(), Failure> {
            for (number, service) in (1..).zip(services) {
                let service = service.instance(format!("{SERVICE}-{number}"));
                instances.push(service.start(Arc::clone(&transport)).await?);
            }
            Ok(())
        };
        match &database {
            Database::Sqlite(pool) => start(services(options, pool).await?).await?,
            Database::Postgres(pool) => start(services(options, pool).await?).await?,
            Database::MySql(pool) => start(services(options, pool).await?).await?,
        }
        let publisher = Publisher::connect(&transport, "storefront").await?;
        Ok(Self { publisher, instances, database, _temporary: temporary })
    }

    pub(crate) fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// The counts of all instances together.
    pub(crate) fn counts(&self) -> Counts {
        self.instances.iter().map(|running| running.stats().total()).sum()
    }

    /// Waits until every published message has its effect or is a dead letter and nothing happens
    /// any more, or nothing has happened for as long as `patience`. Returns the dead letters.
    pub(crate) async fn finish(
        &self,
        ledger: &Ledger,
        patience: Duration,
        bar: &ProgressBar,
    ) -> Result<DeadLetters, Failure> {
        bar.set_message("handled");
        let mut last = Counts::default();
        let mut since = Instant::now();
        loop {
            let counts = self.counts();
            bar.set_length(counts.fetched.max(ledger.published));
            bar.set_position(counts.fetched - counts.in_flight);
            if counts != last || counts.in_flight > 0 {
                since = Instant::now();
                last = counts;
            } else if since.elapsed() >= QUIET {
                let dead = self.dead_letters(&counts).await?;
                let outstanding = check::outstanding(&self.database, ledger, &dead).await?;
                if outstanding == 0 || since.elapsed() >= patience {
                    return Ok(dead);
                }
                bar.set_message(format!("handled, waiting for {outstanding}"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The ids in the dead-letter queues: looked at, and left there.
    async fn dead_letters(&self, counts: &Counts) -> Result<DeadLetters, Failure> {
        let mut dead = HashMap::new();
        if counts.dead_lettered + counts.conflicts == 0 {
            return Ok(dead);
        }
        let Some(running) = self.instances.first() else { return Ok(dead) };
        let names = shop::OVERLAPPING.iter().map(|(name, _)| *name).chain([shop::AUDIT]);
        for name in names {
            let Some(letters) = running.dead_letters(name) else { continue };
            let mut ids = HashSet::new();
            let mut letters = letters.browse().await?;
            while let Some(letter) = letters.next().await? {
                ids.extend(letter.message_id().map(str::to_owned));
            }
            letters.close().await;
            dead.insert(name.to_owned(), ids);
        }
        Ok(dead)
    }

    pub(crate) async fn stop(self) -> Result<(), Failure> {
        for running in self.instances {
            running.stop().await?;
        }
        self.publisher.close().await;
        self.database.close().await;
        Ok(())
    }
}

/// What the service uses on the broker. Neither that nor the database is connected to.
pub(crate) fn topology(transport: &impl Transport) -> Result<Topology, Failure> {
    let nowhere = SqlitePool::connect_lazy("sqlite::memory:")?;
    Ok(service(&Strategy::None, &nowhere).topology().on(transport))
}

/// The shop's database. What is not to be remembered is in a temporary one.
async fn open(options: &Options) -> Result<(Database, Option<TempDir>), Failure> {
    let writers = match options.strategy {
        StrategyChoice::Transactional | StrategyChoice::Grouped => 4,
        StrategyChoice::Tracked | StrategyChoice::None => 1,
    };
    match (&options.store, options.strategy) {
        (StoreChoice::Memory | StoreChoice::Redis(_), strategy) if strategy.is_in_transaction() => {
            Err("this strategy keeps its records in the database of the effects; use --store \
                 sqlite:PATH, postgres://… or mysql://…, or --strategy tracked"
                .into())
        }
        (StoreChoice::Memory | StoreChoice::Redis(_), _) | (_, StrategyChoice::None) => {
            let folder = TempDir::new()?;
            let path = folder.path().join("orders.db");
            Ok((Database::sqlite(&path, writers, false).await?, Some(folder)))
        }
        (StoreChoice::Sqlite(path), _) => {
            Ok((Database::sqlite(path, writers, options.fresh).await?, None))
        }
        (StoreChoice::Server(url), _) => Ok((Database::server(url, options.fresh).await?, None)),
    }
}

/// What makes the subscriptions of each instance idempotent.
enum Strategy<DB: Statements> {
    Transactional(Transactional<DB>),
    Tracked(Tracked),
    None,
}

impl<DB: Statements> Strategy<DB> {
    async fn new(options: &Options, pool: &Pool<DB>) -> Result<Self, Failure> {
        let transactional = || {
            let strategy = Transactional::new(pool.clone());
            match &options.store {
                // Where others may have a table of the usual name.
                StoreChoice::Server(_) => strategy.table(RECORDS),
                _ => Ok(strategy),
            }
        };
        Ok(match options.strategy {
            StrategyChoice::Transactional => Self::Transactional(transactional()?),
            StrategyChoice::Grouped => {
                // One at a time: groups that change the same rows of the stock would wait for each other.
                let groups = GroupCommit::default().in_flight(1);
                Self::Transactional(transactional()?.group_commit(groups))
            }
            StrategyChoice::Tracked => Self::Tracked(tracked(&options.store).await?),
            StrategyChoice::None => Self::None,
        })
    }

    fn guard(&self, subscription: SubscriptionBuilder) -> SubscriptionBuilder {
        match self {
            Self::Transactional(strategy) => subscription.idempotent(strategy.clone()),
            Self::Tracked(strategy) => subscription.idempotent(strategy.clone()),
            Self::None => subscription,
        }
    }
}

async fn tracked(store: &StoreChoice) -> Result<Tracked, Failure> {
    Ok(match store {
        StoreChoice::Memory => Tracked::new(MemoryStore::new()),
        StoreChoice::Sqlite(path) => Tracked::new(SqliteStore::open(path).await?),
        StoreChoice::Redis(url) => {
            // The shop's tables are not kept, so nor are the records.
            let run = format!("shop-{}", uuid::Uuid::now_v7().simple());
            Tracked::new(RedisStore::connect(url).await?.prefix(run)?.window(OF_A_RUN))
        }
        StoreChoice::Server(url) => match url.split_once(':') {
            Some(("mysql" | "mariadb", _)) => {
                Tracked::new(MySqlStore::connect(url).await?.table(RECORDS)?)
            }
            _ => Tracked::new(PostgresStore::connect(url).await?.table(RECORDS)?),
        },
    })
}

/// For how long a server keeps the records of a run that nobody asks for any more.
const OF_A_RUN: Duration = Duration::from_secs(2 * 24 * 3600);

/// As many as there are to be instances. They share one strategy.
async fn services<DB: Statements>(
    options: &Options,
    pool: &Pool<DB>,
) -> Result<Vec<Service>, Failure> {
    let strategy = Strategy::new(options, pool).await?;
    Ok((0..options.instances).map(|_| service(&strategy, pool)).collect())
}

/// The service with its four subscriptions.
fn service<DB: Statements>(strategy: &Strategy<DB>, pool: &Pool<DB>) -> Service {
    let mut service = Service::new(SERVICE).state(pool.clone());
    for subscription in shop::overlapping() {
        let subscription = strategy.guard(subscription);
        service = service.subscribe(match strategy {
            Strategy::Transactional(_) => subscription.handler(shop::apply_in_transaction::<DB>),
            Strategy::Tracked(_) | Strategy::None => subscription.handler(shop::apply_alone::<DB>),
        });
    }
    let audit = strategy.guard(shop::audit());
    service.subscribe(match strategy {
        Strategy::Transactional(_) => audit.handler(shop::note_in_transaction::<DB>),
        Strategy::Tracked(_) | Strategy::None => audit.handler(shop::note_alone::<DB>),
    })
}
