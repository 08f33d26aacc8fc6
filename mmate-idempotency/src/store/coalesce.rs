//! Concurrent calls of a process, made together.

#[cfg(all(test, shuttle))]
mod explored;

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::claim_call::ClaimCall;
use super::{ClaimRequest, Permit, RecordKey, StoreError, StoreErrorKind};
use crate::protocol::{Claim, Held, Verdict};
use crate::sync::{Mutex, MutexGuard, spawn};

/// Calls that wait for the same round trip. While one is under way, those that come gather, and are
/// the next one: alone, a call waits for nobody.
///
/// Calls about one key are made one after the other, in the order in which they came, so a release
/// does not overtake its claim, and no statement sees a key twice.
pub(crate) struct Coalescer<B>(Arc<Inner<B>>);

/// A store that can answer many calls in one round trip.
#[async_trait]
pub(crate) trait Together: Send + Sync + 'static {
    /// Answers calls about different keys, in their order.
    ///
    /// # Errors
    /// One error is that of all of them. If it is permanent, each is asked again alone, for it may
    /// be the fault of one.
    async fn answer(&self, calls: &[Call]) -> Result<Vec<Verdict>, StoreError>;
}

/// What is asked of a record.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    Claim(Box<ClaimCall>),
    Heartbeat { permit: Permit, lease: Duration },
    Complete { permit: Permit, reply: Option<Bytes> },
    Release { permit: Permit },
}

impl Call {
    pub(crate) fn key(&self) -> &RecordKey {
        match self {
            Self::Claim(claim) => &claim.key,
            Self::Heartbeat { permit, .. }
            | Self::Complete { permit, .. }
            | Self::Release { permit } => permit.key(),
        }
    }

    pub(crate) fn attempted(&self) -> &'static str {
        match self {
            Self::Claim(_) => "claim a key",
            Self::Heartbeat { .. } => "prolong a lease",
            Self::Complete { .. } => "complete a claim",
            Self::Release { .. } => "release a claim",
        }
    }
}

struct Inner<B> {
    store: B,
    /// How many calls make a round trip at most.
    most: usize,
    /// How many round trips may be under way at once.
    lanes: usize,
    desk: Mutex<Desk>,
}

#[derive(Default)]
struct Desk {
    waiting: VecDeque<Waiting>,
    /// What round trips are under way about.
    busy: HashSet<RecordKey>,
    lanes: usize,
}

struct Waiting {
    call: Call,
    answer: oneshot::Sender<Result<Verdict, StoreError>>,
}

impl<B: Together> Coalescer<B> {
    /// Up to `most` calls a round trip, and up to `lanes` round trips at once.
    pub(crate) fn new(store: B, most: usize, lanes: usize) -> Self {
        let desk = Mutex::default();
        Self(Arc::new(Inner { store, most: most.max(1), lanes: lanes.max(1), desk }))
    }

    pub(crate) fn store(&self) -> &B {
        &self.0.store
    }

    pub(crate) async fn claim(&self, request: &ClaimRequest<'_>) -> Result<Claim, StoreError> {
        match self.call(Call::Claim(Box::new(request.into()))).await? {
            Verdict::Claim(claim) => Ok(claim),
            Verdict::Held(_) | Verdict::Purged(_) => unreachable!("a claim is answered by a claim"),
        }
    }

    /// A heartbeat, a completion or a release.
    pub(crate) async fn held(&self, call: Call) -> Result<Held, StoreError> {
        match self.call(call).await? {
            Verdict::Held(held) => Ok(held),
            Verdict::Claim(_) | Verdict::Purged(_) => unreachable!("only claims and purges are"),
        }
    }

    async fn call(&self, call: Call) -> Result<Verdict, StoreError> {
        let attempted = call.attempted();
        let (answer, answered) = oneshot::channel();
        let opens_lane = {
            let mut desk = self.0.desk();
            desk.waiting.push_back(Waiting { call, answer });
            let opens_lane = desk.lanes < self.0.lanes;
            desk.lanes += usize::from(opens_lane);
            opens_lane
        };
        if opens_lane {
            let lane = Lane { inner: Arc::clone(&self.0), is_open: true };
            spawn(lane.run());
        }
        answered.await.unwrap_or_else(|_| {
            let text = "the runtime ended meanwhile";
            Err(StoreError::new(StoreErrorKind::Unknown, attempted, text))
        })
    }
}

impl<B> Inner<B> {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        // Nothing panics while it is held.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes round trips for as long as calls wait.
struct Lane<B> {
    inner: Arc<Inner<B>>,
    is_open: bool,
}

impl<B: Together> Lane<B> {
    async fn run(mut self) {
        loop {
            let taken = self.take();
            if taken.is_empty() {
                return;
            }
            let (calls, answers): (Vec<_>, Vec<_>) =
                taken.into_iter().map(|waiting| (waiting.call, waiting.answer)).unzip();
            let keys: Vec<_> = calls.iter().map(|call| call.key().clone()).collect();
            let keys = Keys { inner: &self.inner, keys };
            let verdicts = self.ask(&calls).await;
            // Before anybody is told, who may call again about the same key.
            drop(keys);
            for (answer, verdict) in answers.into_iter().zip(verdicts) {
                // Nobody may wait any more.
                let _ = answer.send(verdict);
            }
        }
    }

    /// What can be asked now. Where that is nothing the lane is closed, before anybody can come who
    /// relies on it.
    fn take(&mut self) -> Vec<Waiting> {
        let mut desk = self.inner.desk();
        let taken = desk.take(self.inner.most);
        if taken.is_empty() {
            desk.lanes -= 1;
            self.is_open = false;
        }
        taken
    }

    async fn ask(&self, calls: &[Call]) -> Vec<Result<Verdict, StoreError>> {
        let error = match self.inner.store.answer(calls).await {
            Ok(verdicts) => {
                debug_assert_eq!(verdicts.len(), calls.len(), "each call has an answer");
                return verdicts.into_iter().map(Ok).collect();
            }
            Err(error) => error,
        };
        if error.kind() != StoreErrorKind::Permanent || calls.len() == 1 {
            let text = error.cause();
            let copy = |call: &Call| StoreError::new(error.kind(), call.attempted(), text.clone());
            return calls.iter().map(|call| Err(copy(call))).collect();
        }
        let mut verdicts = Vec::with_capacity(calls.len());
        for call in calls {
            let answer = self.inner.store.answer(std::slice::from_ref(call)).await;
            let none = || StoreError::new(StoreErrorKind::Unknown, call.attempted(), "no answer");
            verdicts.push(answer.and_then(|mut verdicts| verdicts.pop().ok_or_else(none)));
        }
        verdicts
    }
}

impl<B> Drop for Lane<B> {
    fn drop(&mut self) {
        if self.is_open {
            self.inner.desk().lanes -= 1;
        }
    }
}

impl Desk {
    /// The first calls about keys that nobody is asking about. What is left behind for its key is
    /// taken when that is done, by whoever has asked.
    fn take(&mut self, most: usize) -> Vec<Waiting> {
        let mut taken = Vec::with_capacity(self.waiting.len().min(most));
        let mut left = VecDeque::new();
        // Keys of calls that stay: those behind them stay too, in their order.
        let mut stays = HashSet::new();
        while let Some(waiting) = self.waiting.pop_front() {
            if taken.len() == most {
                left.push_back(waiting);
                break;
            }
            // Nobody waits for a claim that was never made, so it is not made.
            if waiting.answer.is_closed() && matches!(waiting.call, Call::Claim(_)) {
                continue;
            }
            let key = waiting.call.key();
            if self.busy.contains(key) || stays.contains(key) {
                stays.insert(key.clone());
                left.push_back(waiting);
            } else {
                self.busy.insert(key.clone());
                taken.push(waiting);
            }
        }
        left.append(&mut self.waiting);
        self.waiting = left;
        taken
    }
}

/// The keys of a round trip, busy as long as this lives: also if the runtime ends it.
struct Keys<'a, B> {
    inner: &'a Inner<B>,
    keys: Vec<RecordKey>,
}

impl<B> Drop for Keys<'_, B> {
    fn drop(&mut self) {
        let mut desk = self.inner.desk();
        for key in &self.keys {
            desk.busy.remove(key);
        }
    }
}

impl<B> Clone for Coalescer<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;
    use tokio::task::JoinSet;

    use super::*;
    use crate::protocol::Grant;
    use crate::store::Claimant;

    /// Notes what it is asked, and answers when it is let.
    #[derive(Clone)]
    struct Slow {
        asked: Arc<Mutex<Vec<Vec<String>>>>,
        turns: Arc<Semaphore>,
    }

    #[async_trait]
    impl Together for Slow {
        async fn answer(&self, calls: &[Call]) -> Result<Vec<Verdict>, StoreError> {
            let say = |call: &Call| match call {
                Call::Claim(claim) => claim.key.id().to_owned(),
                other => format!("-{}", other.key().id()),
            };
            self.asked.lock().unwrap().push(calls.iter().map(say).collect());
            self.turns.acquire().await.unwrap().forget();
            if calls.iter().any(|call| call.key().id() == "poison") {
                return Err(StoreError::new(StoreErrorKind::Permanent, "claim a key", "poison"));
            }
            let verdict = |call: &Call| match call {
                Call::Claim(_) => Verdict::Claim(Claim::Granted(Grant {
                    fence: 1,
                    attempt: 1,
                    taken_over: false,
                })),
                _ => Verdict::Held(Held::Yes),
            };
            Ok(calls.iter().map(verdict).collect())
        }
    }

    fn slow(lanes: usize) -> (Coalescer<Slow>, Slow) {
        let slow = Slow { asked: Arc::default(), turns: Arc::new(Semaphore::new(0)) };
        (Coalescer::new(slow.clone(), 4, lanes), slow)
    }

    fn request(id: &str) -> ClaimRequest<'static> {
        let key = RecordKey::new("scope", id).unwrap();
        ClaimRequest::new(key, Claimant::default(), Duration::from_secs(1))
    }

    /// Claims these, in their order.
    fn claim(all: &mut JoinSet<bool>, coalescer: &Coalescer<Slow>, ids: &[&str]) {
        for id in ids {
            let (coalescer, request) = (coalescer.clone(), request(id));
            all.spawn(async move { coalescer.claim(&request).await.is_ok() });
        }
    }

    async fn until_asked(slow: &Slow, times: usize) {
        while slow.asked.lock().unwrap().len() < times {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn calls_that_come_during_a_round_trip_are_the_next_one() {
        let (coalescer, slow) = slow(1);
        let mut all = JoinSet::new();
        claim(&mut all, &coalescer, &["a"]);
        until_asked(&slow, 1).await;
        claim(&mut all, &coalescer, &["b", "c", "d", "e", "f"]);
        tokio::task::yield_now().await;
        slow.turns.add_permits(3);
        assert!(all.join_all().await.into_iter().all(|granted| granted));
        assert_eq!(*slow.asked.lock().unwrap(), [vec!["a"], vec!["b", "c", "d", "e"], vec!["f"]]);
    }

    #[tokio::test]
    async fn calls_about_one_key_are_made_in_their_order_and_never_together() {
        let (coalescer, slow) = slow(3);
        let mut all = JoinSet::new();
        claim(&mut all, &coalescer, &["a", "b", "a"]);
        until_asked(&slow, 1).await;
        let grant = Grant { fence: 1, attempt: 1, taken_over: false };
        let release = Call::Release { permit: Permit::new(&request("a"), grant) };
        let released = {
            let coalescer = coalescer.clone();
            spawn(async move { coalescer.held(release).await.is_ok() })
        };
        claim(&mut all, &coalescer, &["c"]);
        until_asked(&slow, 2).await;
        assert_eq!(*slow.asked.lock().unwrap(), [vec!["a", "b"], vec!["c"]]);
        slow.turns.add_permits(4);
        assert!(all.join_all().await.into_iter().all(|granted| granted));
        assert!(released.await.unwrap());
        assert_eq!(slow.asked.lock().unwrap()[2..], [vec!["a"], vec!["-a"]]);
    }

    #[tokio::test]
    async fn what_one_call_is_to_blame_for_harms_no_other() {
        let (coalescer, slow) = slow(1);
        slow.turns.add_permits(100);
        let mut all = JoinSet::new();
        claim(&mut all, &coalescer, &["a", "poison", "b"]);
        let granted = all.join_all().await;
        assert_eq!(granted.into_iter().filter(|granted| *granted).count(), 2);
    }

    #[tokio::test]
    async fn a_claim_that_nobody_waits_for_any_more_is_not_made() {
        let (coalescer, slow) = slow(1);
        let mut all = JoinSet::new();
        claim(&mut all, &coalescer, &["a"]);
        until_asked(&slow, 1).await;
        let mut gone = JoinSet::new();
        claim(&mut gone, &coalescer, &["b"]);
        tokio::task::yield_now().await;
        gone.shutdown().await;
        slow.turns.add_permits(1);
        assert!(all.join_next().await.unwrap().unwrap());
        assert_eq!(*slow.asked.lock().unwrap(), [["a"]]);
    }
}
