//! Many messages, one transaction.
//!
//! Each message goes through its middleware on a task of its own. At the desk it waits for its turn;
//! a lane takes what waits there, begins a transaction, claims for all of them, and hands the
//! transaction to one after the other, or to one handler of all of them. What each reports decides
//! whether the lane commits.

mod batch;
mod desk;
mod ending;
mod lane;
mod member;
mod meters;
mod party;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use mmate_core::{BatchTerms, Context};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

pub(super) use self::batch::BatchTx;
use self::desk::{Desk, Turn, Waiting};
use self::lane::Lane;
pub(super) use self::member::handle;
use self::meters::GroupMeters;
use super::Transactional;
use super::database::TransactionalDatabase;
use crate::store::claim_call::ClaimCall;

/// How [`Transactional::group_commit`] puts messages into one transaction.
///
/// A group is what has come while the groups before it were under way: alone, a message waits for
/// nobody. A subscription has groups only if it handles many messages at a time, so give it a
/// [`concurrency`](mmate_core::SubscriptionBuilder::concurrency) of about the number of messages in a
/// group times the number of groups.
///
/// ```
/// use std::time::Duration;
/// use mmate_idempotency::GroupCommit;
///
/// let options = GroupCommit::up_to(100).in_flight(2).time_limit(Duration::from_millis(200));
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "options do nothing until a strategy has them"]
pub struct GroupCommit {
    size: usize,
    in_flight: usize,
    linger: Duration,
    pub(super) time_limit: Duration,
}

const LONGEST_LINGER: Duration = Duration::from_secs(1);

impl GroupCommit {
    /// At most so many messages a group, at least 1; 64 by default. After a group that had to be
    /// rolled back the next ones are smaller for a while.
    pub fn up_to(messages: usize) -> Self {
        Self { size: messages.max(1), ..Self::default() }
    }

    /// How many groups are under way at the same time, each on a connection of its own; 4 by
    /// default, at least 1, and never more than the pool has connections. On SQLite, which has one
    /// writer, the next one forms meanwhile.
    pub fn in_flight(mut self, groups: usize) -> Self {
        self.in_flight = groups.max(1);
        self
    }

    /// How long a group that is not full waits for more messages before it begins: not at all by
    /// default, and 1 s at most. It delays each message by that much where few come, also at the
    /// end of a drain.
    pub fn linger(mut self, time: Duration) -> Self {
        self.linger = time.min(LONGEST_LINGER);
        self
    }

    /// How long the handlers of a group may take altogether; 1 s by default. A group that is not
    /// through by then is rolled back, and its messages run one by one, so a handler that waits
    /// long keeps its neighbours for no longer than that. A message that is alone in its group may
    /// take as long as a handler may take.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }
}

/// Measured on PostgreSQL with two cores, groups of 30 give 0.9 of what groups of 100 give, and larger
/// ones no more; four connections give twice as much as one, and eight less than four; to wait for 1,
/// 3 or 10 ms gives no more than the noise (`docs/performance/groups.md`).
impl Default for GroupCommit {
    fn default() -> Self {
        Self { size: 64, in_flight: 4, linger: Duration::ZERO, time_limit: Duration::from_secs(1) }
    }
}

/// The groups of a strategy and its clones.
pub(super) struct Groups<DB: TransactionalDatabase> {
    options: GroupCommit,
    /// Of batches, if each group is one.
    terms: Option<BatchTerms>,
    desk: Mutex<Desk<DB>>,
    /// Tells a lane that lingers.
    full: Notify,
    lanes: TaskTracker,
    meters: OnceLock<GroupMeters>,
}

impl<DB: TransactionalDatabase> Groups<DB> {
    pub(super) fn new(options: GroupCommit, connections: u32) -> Arc<Self> {
        Self::with_terms(options, connections, None)
    }

    /// Groups that are batches.
    fn of_batches(options: GroupCommit, connections: u32, terms: &BatchTerms) -> Arc<Self> {
        let (size, linger) = (terms.messages().max(1), terms.within());
        let options = GroupCommit { size, linger, ..options };
        Self::with_terms(options, connections, Some(terms.clone()))
    }

    fn with_terms(options: GroupCommit, connections: u32, terms: Option<BatchTerms>) -> Arc<Self> {
        let connections = usize::try_from(connections).unwrap_or(usize::MAX).max(1);
        let in_flight = options.in_flight.min(connections);
        let options = GroupCommit { in_flight, ..options };
        Arc::new(Self {
            options,
            terms,
            desk: Mutex::new(Desk::new(options.size)),
            full: Notify::new(),
            lanes: TaskTracker::new(),
            meters: OnceLock::new(),
        })
    }

    /// The same for a strategy that is to work otherwise: what waits there is no business of it.
    pub(super) fn afresh(&self) -> Arc<Self> {
        Self::new(self.options, u32::MAX)
    }

    pub(super) fn options(&self) -> GroupCommit {
        self.options
    }

    /// Waits until no group is to wait for more.
    async fn flushed(&self) {
        match &self.terms {
            Some(terms) => terms.flushed().await,
            None => std::future::pending().await,
        }
    }

    /// Waits for the groups that are under way, for so long.
    pub(super) async fn finish(&self, limit: Duration) {
        // Others may share the strategy: it is closed only to see what is left end.
        self.lanes.close();
        let finished = timeout(limit, self.lanes.wait()).await;
        self.lanes.reopen();
        if finished.is_err() {
            tracing::warn!("groups of messages were not finished in time; the records decide");
        }
    }

    /// Puts a message into the queue for a transaction.
    fn join(
        self: &Arc<Self>,
        strategy: &Transactional<DB>,
        claim: Option<Box<ClaimCall>>,
        alone: bool,
    ) -> oneshot::Receiver<Turn<DB>> {
        let (turn, given) = oneshot::channel();
        let opens_lane = {
            let mut desk = self.desk();
            desk.queue(Waiting { claim, alone, since: Instant::now(), turn });
            if desk.is_full() {
                self.full.notify_one();
            }
            desk.opens_lane(self.options.in_flight)
        };
        if opens_lane {
            let lane = Lane::new(strategy.clone(), Arc::clone(self));
            self.lanes.spawn(lane.run());
        }
        given
    }

    fn gathers_since(&self) -> Option<Instant> {
        self.desk().gathers_since()
    }

    fn desk(&self) -> MutexGuard<'_, Desk<DB>> {
        // Nothing panics while it is held.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn meters(&self, store: &'static str) -> &GroupMeters {
        self.meters.get_or_init(|| GroupMeters::new(store))
    }
}

/// The groups that are batches, by the subscription whose handler takes them.
pub(super) struct Batches<DB: TransactionalDatabase>(Mutex<ByPlace<DB>>);

/// Service, subscription and instance.
type ByPlace<DB> = HashMap<[String; 3], Arc<Groups<DB>>>;

impl<DB: TransactionalDatabase> Batches<DB> {
    /// The groups of the message's subscription, if its handler takes batches.
    pub(super) fn of(
        &self,
        context: &Context,
        strategy: &Transactional<DB>,
    ) -> Option<Arc<Groups<DB>>> {
        let terms = context.batches()?;
        let place = [context.service(), context.subscription(), context.instance()];
        let groups = self
            .lock()
            .entry(place.map(str::to_owned))
            .or_insert_with(|| {
                let options = strategy.groups.as_ref().map(|groups| groups.options);
                let connections = strategy.pool.options().get_max_connections();
                Groups::of_batches(options.unwrap_or_default(), connections, terms)
            })
            .clone();
        Some(groups)
    }

    pub(super) async fn finish(&self, limit: Duration) {
        let all: Vec<_> = self.lock().values().cloned().collect();
        join_all(all.iter().map(|groups| groups.finish(limit))).await;
    }

    fn lock(&self) -> MutexGuard<'_, ByPlace<DB>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<DB: TransactionalDatabase> Default for Batches<DB> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<DB: TransactionalDatabase> fmt::Debug for Groups<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Groups").field("options", &self.options).finish_non_exhaustive()
    }
}
