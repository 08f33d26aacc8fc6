//! Claim, effect and record in one database transaction.

mod attempt;
mod database;
mod group;
mod misuse;
#[cfg(feature = "mysql")]
mod mysql;
mod open;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
mod tx;

use std::any::TypeId;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use mmate_core::health::Status;
use mmate_core::{
    BoxError, Context, HandlerError, Idempotency, Middleware, Next, Outcome, Surroundings,
};
use sqlx::Pool;
use tokio::time::{Instant, sleep};

use self::attempt::End;
pub use self::database::TransactionalDatabase;
use self::database::{OptionsOf, StoreOf, Transactions};
pub use self::group::GroupCommit;
use self::group::{Batches, Groups};
pub use self::tx::Tx;
use super::identity::Identity;
use super::outage::{self, Patience, Teller};
use super::upkeep::Upkeep;
use super::{shared_options, verdict};
use crate::metrics::Meters;
use crate::protocol::Retention;
use crate::store::{InvalidTableName, ManualClock, RecordKey, Store, StoreError};

/// Applies the effect of each message exactly once per scope and id: the record that a message is
/// done is written in the transaction of its effect, so there is either both or neither.
///
/// The handler gets the transaction as [`Tx<DB>`](Tx). Effects outside of it, such as a mail or
/// a call to another service, are not covered. The records are in the table `processed_messages`
/// of the same database, which is made when the service starts.
///
/// On SQLite there is one writer, so handlers of one database run one after the other, in the
/// order in which they came; those of this process wait at a gate, those of other processes as the
/// pool's `busy_timeout` says. A commit is as durable as the pool's `synchronous` setting: with
/// anything less than `FULL` a power cut may undo effects whose messages were acknowledged.
///
/// On MySQL and MariaDB, at every isolation level of InnoDB, a copy of a message whose transaction
/// is open waits for it, up to four seconds, and is deferred then: the session's
/// `innodb_lock_wait_timeout` is lowered to that, and so handlers wait no longer for locks either. A
/// transaction that meets a deadlock is repeated within the same attempt; where its handler goes on
/// regardless, nothing is committed. Neither is what follows a statement that commits by itself, such as
/// `CREATE TABLE`. Tables of other engines than InnoDB take no part in a transaction. A commit is as
/// durable as the server's `innodb_flush_log_at_trx_commit`, which is 1 unless it was told otherwise.
///
/// ```
/// use mmate_core::{HandlerError, InProcess, Json, Outgoing, Service, Subscription};
/// use mmate_idempotency::{Transactional, Tx};
/// use sqlx::{Sqlite, SqlitePool};
///
/// async fn reserve(Json(sku): Json<String>, mut tx: Tx<Sqlite>) -> Result<(), HandlerError> {
///     sqlx::query("INSERT INTO reservations (sku) VALUES (?)").bind(sku).execute(&mut *tx).await?;
///     Ok(())
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let url = format!("sqlite://{}?mode=rwc", folder.path().join("shop.db").display());
/// let pool = SqlitePool::connect(&url).await?;
/// sqlx::query("CREATE TABLE reservations (sku TEXT)").execute(&pool).await?;
/// let broker = InProcess::new();
/// let running = Service::new("inventory")
///     .subscribe(
///         Subscription::per_service("reserve", ["order.created.*"])
///             .idempotent(Transactional::new(pool.clone()))
///             .handler(reserve),
///     )
///     .start(broker.clone())
///     .await?;
///
/// for _ in 0..2 {
///     let event = Outgoing::event("order.created.eu", "OrderCreated", "book").id_text("order-7");
///     running.publisher().publish(event).await?;
/// }
/// broker.idle().await;
/// let effects: i64 = sqlx::query_scalar("SELECT count(*) FROM reservations").fetch_one(&pool).await?;
/// assert_eq!(effects, 1);
/// running.stop().await?;
/// # Ok(()) }
/// ```
///
/// Cheap to clone; clones share the pool.
#[must_use = "a strategy does nothing until a subscription has it"]
pub struct Transactional<DB: TransactionalDatabase> {
    identity: Identity,
    patience: Patience,
    purge_every: Duration,
    reply_limit: usize,
    pool: Pool<DB>,
    store: StoreOf<DB>,
    options: OptionsOf<DB>,
    groups: Option<Arc<Groups<DB>>>,
    batches: Arc<Batches<DB>>,
    shared: Arc<Shared>,
}

/// What the clones of a strategy share.
#[derive(Default)]
struct Shared {
    upkeep: Upkeep,
    teller: Teller,
    meters: OnceLock<Arc<Meters>>,
}

impl<DB: TransactionalDatabase> Transactional<DB> {
    /// Transactions on connections of that pool.
    pub fn new(pool: Pool<DB>) -> Self {
        Self {
            identity: Identity::default(),
            patience: Patience::default(),
            purge_every: super::PURGE_EVERY,
            reply_limit: super::REPLY_LIMIT,
            store: DB::Transactions::store(pool.clone()),
            options: DB::Transactions::options(&pool),
            pool,
            groups: None,
            batches: Arc::default(),
            shared: Arc::default(),
        }
    }

    /// Uses another table than `processed_messages`.
    ///
    /// # Errors
    /// When that cannot be the name of one.
    pub fn table(mut self, name: impl AsRef<str>) -> Result<Self, InvalidTableName> {
        self.store = DB::Transactions::with_table(self.store, name.as_ref())?;
        Ok(self.with_own_groups())
    }

    /// For how long duplicates are recognised after the work was done; seven days by default.
    pub fn window(self, window: Duration) -> Self {
        self.retention(Retention::window(window))
    }

    /// For how long records are kept.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.store = DB::Transactions::with_retention(self.store, retention);
        self.with_own_groups()
    }

    /// Uses another clock than the database's, for tests.
    pub fn clock(mut self, clock: ManualClock) -> Self {
        self.store = DB::Transactions::with_clock(self.store, clock);
        self.with_own_groups()
    }

    /// Commits many messages in one transaction: what has come while the last commit was under way
    /// shares the next one. Messages are acknowledged after that commit only.
    ///
    /// A commit waits for the disk, so where that is what limits a subscription, this handles
    /// several times as many messages. The handlers of a group run one after the other, in the order
    /// in which their messages came, and each gets the transaction as its [`Tx`].
    ///
    /// **When one of them fails, panics, takes too long or asks for another outcome, all of the group
    /// is rolled back, and those handlers that ran are run a second time within the same attempt,
    /// each alone in a transaction of its own. So what a handler does outside of its [`Tx`], such as
    /// a call to another service, may happen twice although nothing failed but a neighbour; within
    /// the [`Tx`] it happens once.** Messages that a handler publishes have the same ids in both
    /// runs. A handler sees what its neighbours before it did; if that is rolled back, it runs again
    /// without it.
    ///
    /// A handler that waits keeps its neighbours, for [`time_limit`](GroupCommit::time_limit) at
    /// most. Where many messages fail groups become smaller, down to one message.
    ///
    /// ```
    /// # use mmate_core::{HandlerError, Json, Subscription};
    /// # use mmate_idempotency::{GroupCommit, Transactional, Tx};
    /// # use sqlx::{Sqlite, SqlitePool};
    /// # async fn reserve(Json(sku): Json<String>, mut tx: Tx<Sqlite>) -> Result<(), HandlerError> { Ok(()) }
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), sqlx::Error> {
    /// # let pool = SqlitePool::connect_lazy("sqlite::memory:")?;
    /// let subscription = Subscription::per_service("reserve", ["order.created.*"])
    ///     .concurrency(128)
    ///     .idempotent(Transactional::new(pool).group_commit(GroupCommit::default()))
    ///     .handler(reserve);
    /// # let _ = subscription; Ok(()) }
    /// ```
    pub fn group_commit(mut self, options: GroupCommit) -> Self {
        self.groups = Some(Groups::new(options, self.pool.options().get_max_connections()));
        self
    }

    /// Whoever works otherwise than those it was cloned from shares no group with them.
    fn with_own_groups(mut self) -> Self {
        self.groups = self.groups.map(|groups| groups.afresh());
        self.batches = Arc::default();
        self
    }

    shared_options!();
}

#[async_trait]
impl<DB: TransactionalDatabase> Middleware for Transactional<DB> {
    async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
        if let Some(batches) = self.batches.of(context, self) {
            return group::handle(self, &batches, context, next).await;
        }
        if let Some(groups) = &self.groups {
            return group::handle(self, groups, context, next).await;
        }
        let began = Instant::now();
        let mut repetitions = 0;
        // Of an attempt of which nobody knows whether it was committed.
        let mut in_doubt = None;
        loop {
            let (error, again) = match self.attempt(context, next, &mut in_doubt).await {
                End::Outcome(result) => return result,
                End::InDoubt => (None, true),
                End::GaveWay { error, again } => (error, again),
            };
            let may_repeat = again && repetitions < MOST_REPETITIONS;
            if !may_repeat || began.elapsed() > self.patience.outage {
                return match error {
                    Some(error) if context.deferrals() >= MOST_DEFERRALS => Err(error),
                    _ => Ok(verdict::trouble()),
                };
            }
            repetitions += 1;
            tracing::debug!(
                message_id = context.message_id().map(tracing::field::display),
                error = error.map(|error| error.chain()),
                "the transaction of a message is repeated"
            );
            sleep(FIRST_PAUSE.mul_f64(fastrand::f64() * f64::from(1 << repetitions))).await;
        }
    }

    async fn start(&self) -> Result<(), BoxError> {
        self.store.migrate().await?;
        let store: Arc<dyn Store> = Arc::new(self.store.clone());
        self.shared.upkeep.start(&store, self.purge_every, self.meters());
        Ok(())
    }

    async fn stop(&self) {
        self.shared.upkeep.stop();
        if let Some(groups) = &self.groups {
            groups.finish(self.patience.answer).await;
        }
        self.batches.finish(self.patience.answer).await;
    }

    fn check(&self, surroundings: &Surroundings) -> Result<(), String> {
        self.identity.check()?;
        if let (Some(groups), false) = (&self.groups, surroundings.batches) {
            let limit = groups.options().time_limit;
            let held = self.patience.outage.saturating_add(limit);
            let what = format!(
                "a message waits up to {:?} for its group's transaction, and may be handled in it \
                 for {limit:?} before it runs alone",
                self.patience.outage
            );
            return surroundings.may_hold(&what, held);
        }
        outage::check(self.patience, surroundings)
    }

    fn warnings(&self, surroundings: &Surroundings) -> Vec<String> {
        self.identity.warnings(self.store.remembers(), surroundings)
    }

    fn status(&self) -> Status {
        self.shared.teller.status(self.store.name(), "messages are held back")
    }

    fn provides(&self) -> Vec<TypeId> {
        vec![TypeId::of::<Tx<DB>>(), TypeId::of::<RecordKey>()]
    }
}

impl<DB: TransactionalDatabase> Idempotency for Transactional<DB> {}

/// How often a transaction is repeated at once, after it had to give way to another one or it is
/// not known whether it was committed. After that the message is deferred.
const MOST_REPETITIONS: u32 = 5;

/// How often a message is deferred at most because its transaction had to give way, before that is
/// a failure of its handler.
const MOST_DEFERRALS: u32 = 100;

const FIRST_PAUSE: Duration = Duration::from_millis(5);

impl<DB: TransactionalDatabase> Transactional<DB> {
    fn meters(&self) -> &Arc<Meters> {
        self.shared.meters.get_or_init(|| Arc::new(Meters::new(self.store.name())))
    }

    fn note(&self, error: &StoreError) {
        outage::note(self.meters(), &self.shared.teller, self.store.name(), error);
    }
}

impl<DB: TransactionalDatabase> Clone for Transactional<DB> {
    fn clone(&self) -> Self {
        Self {
            identity: self.identity.clone(),
            patience: self.patience,
            purge_every: self.purge_every,
            reply_limit: self.reply_limit,
            pool: self.pool.clone(),
            store: self.store.clone(),
            options: self.options.clone(),
            groups: self.groups.clone(),
            batches: Arc::clone(&self.batches),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<DB: TransactionalDatabase> fmt::Debug for Transactional<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transactional")
            .field("database", &DB::NAME)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}
