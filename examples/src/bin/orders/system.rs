//! The running system: the service's instances, a publisher, and the wait until all is done.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use mmate_core::{Counts, Publisher, Running, Service, SubscriptionBuilder, Topology, Transport};
use mmate_idempotency::{MemoryStore, SqliteStore, Tracked, Transactional};
use sqlx::SqlitePool;
use tempfile::TempDir;

use crate::check::{self, DeadLetters};
use crate::database;
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
    database: SqlitePool,
    _temporary: Option<TempDir>,
}

/// What makes the subscriptions of each instance idempotent.
enum Strategy {
    Transactional(Transactional<sqlx::Sqlite>),
    Tracked(Tracked),
    None,
}

impl System {
    pub(crate) async fn start(
        options: &Options,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, Failure> {
        let (path, temporary) = database_path(options)?;
        let writers = match options.strategy {
            StrategyChoice::Transactional => 4,
            StrategyChoice::Tracked | StrategyChoice::None => 1,
        };
        let database = database::open(&path, writers, options.fresh).await?;
        let strategy = match (options.strategy, &options.store) {
            (StrategyChoice::Transactional, StoreChoice::Sqlite(_)) => {
                Strategy::Transactional(Transactional::new(database.clone()))
            }
            (StrategyChoice::Transactional, StoreChoice::Memory) => {
                return Err("the transactional strategy keeps its records in the database of the \
                            effects; use --store sqlite:PATH, or --strategy tracked"
                    .into());
            }
            (StrategyChoice::Tracked, StoreChoice::Memory) => {
                Strategy::Tracked(Tracked::new(MemoryStore::new()))
            }
            (StrategyChoice::Tracked, StoreChoice::Sqlite(path)) => {
                Strategy::Tracked(Tracked::new(SqliteStore::open(path).await?))
            }
            (StrategyChoice::None, _) => Strategy::None,
        };

        let mut instances = Vec::new();
        for number in 1..=options.instances {
            let service = strategy.service(&database).instance(format!("{SERVICE}-{number}"));
            instances.push(service.start(Arc::clone(&transport)).await?);
        }
        let publisher = Publisher::connect(&transport, "storefront").await?;
        Ok(Self { publisher, instances, database, _temporary: temporary })
    }

    pub(crate) fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    pub(crate) fn database(&self) -> &SqlitePool {
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
    Ok(Strategy::None.service(&nowhere).topology().on(transport))
}

impl Strategy {
    /// The service with its four subscriptions.
    fn service(&self, pool: &SqlitePool) -> Service {
        let mut service = Service::new(SERVICE).state(pool.clone());
        for subscription in shop::overlapping() {
            service = service.subscribe(match self {
                Self::Transactional(_) => {
                    self.guard(subscription).handler(shop::apply_in_transaction)
                }
                Self::Tracked(_) | Self::None => {
                    self.guard(subscription).handler(shop::apply_alone)
                }
            });
        }
        service.subscribe(match self {
            Self::Transactional(_) => self.guard(shop::audit()).handler(shop::note_in_transaction),
            Self::Tracked(_) | Self::None => self.guard(shop::audit()).handler(shop::note_alone),
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

/// The database's file. What is not to be remembered is in a temporary one.
fn database_path(options: &Options) -> Result<(PathBuf, Option<TempDir>), Failure> {
    match &options.store {
        StoreChoice::Sqlite(path) if options.strategy != StrategyChoice::None => {
            Ok((path.clone(), None))
        }
        StoreChoice::Sqlite(_) | StoreChoice::Memory => {
            let folder = TempDir::new()?;
            Ok((folder.path().join("orders.db"), Some(folder)))
        }
    }
}
