//! Claim, effect and record in one database transaction.

mod database;
mod group;
mod open;
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
    error_chain,
};
use sqlx::Pool;
use tokio::time::timeout;

pub use self::database::TransactionalDatabase;
use self::database::Uncommitted;
pub use self::group::GroupCommit;
use self::group::Groups;
use self::open::{CommitError, Host, Open, Slot};
pub use self::tx::Tx;
use super::identity::Identity;
use super::outage::{self, Patience, Teller};
use super::upkeep::Upkeep;
use super::{shared_options, verdict};
use crate::metrics::Meters;
use crate::protocol::{Claim, Retention};
use crate::store::{ClaimRequest, InvalidTableName, ManualClock, Store, StoreError};

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
    pool: Pool<DB>,
    store: DB::Store,
    groups: Option<Arc<Groups<DB>>>,
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
            store: DB::store(pool.clone()),
            pool,
            groups: None,
            shared: Arc::default(),
        }
    }

    /// Uses another table than `processed_messages`.
    ///
    /// # Errors
    /// When that cannot be the name of one.
    pub fn table(mut self, name: impl AsRef<str>) -> Result<Self, InvalidTableName> {
        self.store = DB::with_table(self.store, name.as_ref())?;
        Ok(self.with_own_groups())
    }

    /// For how long duplicates are recognised after the work was done; seven days by default.
    pub fn window(self, window: Duration) -> Self {
        self.retention(Retention::window(window))
    }

    /// For how long records are kept.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.store = DB::with_retention(self.store, retention);
        self.with_own_groups()
    }

    /// Uses another clock than the database's, for tests.
    pub fn clock(mut self, clock: ManualClock) -> Self {
        self.store = DB::with_clock(self.store, clock);
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
        self
    }

    shared_options!();
}

#[async_trait]
impl<DB: TransactionalDatabase> Middleware for Transactional<DB> {
    async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
        if let Some(groups) = &self.groups {
            return group::handle(self, groups, context, next).await;
        }
        // There is no lease: the claim is done with when the transaction ends.
        let request = self.identity.claim(context, Duration::ZERO)?;
        let has_record = request.is_some();
        let Some((mut open, claim)) = self.begin(context, request).await else {
            return Ok(verdict::trouble());
        };
        open = match claim {
            None | Some(Claim::Granted(_)) => open,
            Some(Claim::Duplicate(seen)) => {
                self.rollback(open).await;
                return Ok(verdict::duplicate(context, &seen));
            }
            Some(Claim::Conflict) => {
                self.rollback(open).await;
                return Ok(verdict::conflict(context));
            }
            // By another strategy on the same table.
            Some(Claim::Busy { remaining }) => {
                self.rollback(open).await;
                return Ok(verdict::busy(context, remaining));
            }
        };
        if !has_record {
            context.mark_unprotected();
        }
        self.run(open, context, next).await
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
    }

    fn check(&self, surroundings: &Surroundings) -> Result<(), String> {
        if surroundings.batches {
            let wrong = "a transaction of Transactional is one message's, and a batch handler has no \
                         way into it: use Tracked, which guards each message of a batch, or handle \
                         the messages one by one with .handler(…)";
            return Err(wrong.to_owned());
        }
        if let Some(groups) = &self.groups {
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

    fn status(&self) -> Status {
        self.shared.teller.status(self.store.name(), "messages are held back")
    }

    fn provides(&self) -> Vec<TypeId> {
        vec![TypeId::of::<Tx<DB>>()]
    }
}

impl<DB: TransactionalDatabase> Idempotency for Transactional<DB> {}

impl<DB: TransactionalDatabase> Transactional<DB> {
    /// A transaction, and in it the answer to the claim. `None` if the database does not answer for
    /// longer than patience lasts.
    async fn begin(
        &self,
        context: &Context,
        request: Option<ClaimRequest<'_>>,
    ) -> Option<(Open<DB>, Option<Claim>)> {
        let Ok(turn) = timeout(self.patience.outage, DB::turn(&self.store)).await else {
            tracing::warn!(
                message_id = context.message_id().map(tracing::field::display),
                "a message waited too long for its turn to write, and is deferred"
            );
            return None;
        };
        let told = |error: &StoreError| self.note(error);
        let call = async || {
            let mut open = Open::new(DB::begin(&self.pool).await?);
            let claim = match &request {
                Some(request) => Some(DB::record(&self.store, open.connection(), request).await?),
                None => None,
            };
            Ok((open, claim))
        };
        let begun = outage::insist(self.patience, "begin with a message", told, call).await;
        let (open, claim) = begun.ok()?;
        if let Some(claim) = &claim {
            self.meters().claimed(claim);
        }
        Some((open.within(turn), claim))
    }

    async fn run(
        &self,
        open: Open<DB>,
        context: &mut Context,
        next: Next<'_>,
    ) -> Result<Outcome, HandlerError> {
        let host = Host::new(open);
        context.insert(host.slot());
        let result = next.run(context).await;
        context.remove::<Slot<DB>>();
        match (result, host.close()) {
            // An answer that says why it was not done is no reason to keep half of it.
            (Ok(Outcome::Answered(answer)), Some(open)) if !answer.is_success() => {
                self.rollback(open).await;
                Ok(Outcome::Answered(answer))
            }
            (
                Ok(outcome @ (Outcome::Done | Outcome::Answered(_) | Outcome::Duplicate(_))),
                Some(open),
            ) => self.commit(open, context).await.map(|committed| committed.unwrap_or(outcome)),
            (Ok(Outcome::Done | Outcome::Answered(_) | Outcome::Duplicate(_)), None) => {
                Err(HandlerError::retryable(TxMisused::Kept))
            }
            (result, Some(open)) => {
                self.rollback(open).await;
                result
            }
            (result, None) => result,
        }
    }

    /// Commits; an outcome comes back if it is not known whether that worked.
    async fn commit(
        &self,
        open: Open<DB>,
        context: &Context,
    ) -> Result<Option<Outcome>, HandlerError> {
        let error = match timeout(self.patience.answer, open.commit()).await {
            Ok(Ok(())) => return Ok(None),
            Ok(Err(CommitError::Savepoint)) => {
                return Err(HandlerError::retryable(TxMisused::Savepoint));
            }
            Ok(Err(CommitError::Failed(error))) => match DB::uncommitted(&error) {
                Uncommitted::Refused => return Err(HandlerError::retryable(error)),
                Uncommitted::Ended => return Err(HandlerError::retryable(TxMisused::Ended)),
                Uncommitted::Unknown => error_chain(&error),
            },
            Err(_) => format!("no answer within {:?}", self.patience.answer),
        };
        self.meters().uncertain.increment(1);
        tracing::warn!(
            message_id = context.message_id().map(tracing::field::display),
            error,
            "it is not known whether a commit took effect; the message is shown again, and the \
             record decides"
        );
        Ok(Some(verdict::trouble()))
    }

    async fn rollback(&self, open: Open<DB>) {
        // One that takes too long goes on when it is dropped.
        let _ = timeout(self.patience.answer, open.rollback()).await;
    }

    fn meters(&self) -> &Arc<Meters> {
        self.shared.meters.get_or_init(|| Arc::new(Meters::new(self.store.name())))
    }

    fn note(&self, error: &StoreError) {
        outage::note(self.meters(), &self.shared.teller, self.store.name(), error);
    }
}

/// A handler did with its transaction what it must not.
#[derive(Debug, thiserror::Error)]
enum TxMisused {
    #[error(
        "the handler returned while its Tx was still in use, so nothing can be committed; do not \
         move it into a task that outlives the handler"
    )]
    Kept,
    #[error("the handler returned with a savepoint open; commit it or roll it back before")]
    Savepoint,
    #[error(
        "the handler ended its transaction by itself; whether it takes effect is decided by what \
         the handler returns"
    )]
    Ended,
}

impl<DB: TransactionalDatabase> Clone for Transactional<DB> {
    fn clone(&self) -> Self {
        Self {
            identity: self.identity.clone(),
            patience: self.patience,
            purge_every: self.purge_every,
            pool: self.pool.clone(),
            store: self.store.clone(),
            groups: self.groups.clone(),
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
