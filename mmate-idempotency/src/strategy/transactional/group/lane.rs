//! A lane: one group after the other, each in a transaction.

use std::sync::Arc;

use bytes::Bytes;
use mmate_core::{HandlerError, error_chain};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::super::database::{TransactionalDatabase, Uncommitted};
use super::super::misuse::TxMisused;
use super::super::open::{CommitError, Open};
use super::super::{Transactional, outage};
use super::Groups;
use super::desk::{End, Fate, Report, Run, Turn, Waiting};
use crate::protocol::Claim;
use crate::store::claim_call::ClaimCall;
use crate::store::{ClaimRequest, Claimant, Permit, RecordKey, Store, StoreError, StoreErrorKind};

/// Commits groups for as long as messages wait.
pub(super) struct Lane<DB: TransactionalDatabase> {
    strategy: Transactional<DB>,
    groups: Arc<Groups<DB>>,
    is_open: bool,
}

/// Messages whose claims were granted.
struct Party<DB: TransactionalDatabase> {
    to_come: std::vec::IntoIter<(Waiting<DB>, Option<Permit>)>,
    /// Those whose handlers have run, or are at it, in their order.
    ran: Vec<oneshot::Sender<Fate>>,
    /// Of those that have run.
    permits: Vec<Permit>,
    /// What their records keep for copies.
    replies: Vec<(Permit, Bytes)>,
    size: usize,
}

/// Why a group is not committed.
enum Failure<DB: TransactionalDatabase> {
    /// The last one that ran is the reason, or at least it is not known to be none.
    Last { open: Option<Open<DB>>, end: End },
    /// The last one that ran has left its transaction in a state that cannot be committed.
    Misused { open: Option<Open<DB>>, how: TxMisused },
    /// The database does not answer any more.
    Trouble,
    /// One has left before its turn.
    Left { open: Open<DB> },
}

impl<DB: TransactionalDatabase> Lane<DB> {
    /// A lane that the desk counts as open.
    pub(super) fn new(strategy: Transactional<DB>, groups: Arc<Groups<DB>>) -> Self {
        Self { strategy, groups, is_open: true }
    }

    pub(super) async fn run(mut self) {
        while self.has_work() {
            self.gather().await;
            // The turn first: what comes while others have it is in the same group.
            let turn = DB::turn(&self.strategy.store, &self.strategy.options).await;
            self.let_them_come().await;
            let taken = self.take();
            if taken.is_empty() {
                return;
            }
            self.serve(taken, turn).await;
        }
    }

    /// Waits for more messages, if that was asked for.
    async fn gather(&self) {
        let linger = self.groups.options.linger;
        if linger.is_zero() {
            return;
        }
        let full = async {
            while !self.groups.desk().is_full() {
                self.groups.full.notified().await;
            }
        };
        // Then as many as there are.
        let _ = timeout(linger, full).await;
    }

    /// Those of the last group are told at once, and their places are taken at once: this lets their
    /// successors get here, as long as more and more do.
    async fn let_them_come(&self) {
        let mut before = 0;
        loop {
            let now = {
                let desk = self.groups.desk();
                if desk.is_full() { before } else { desk.gathered() }
            };
            if now <= before {
                return;
            }
            before = now;
            tokio::task::yield_now().await;
        }
    }

    /// Whether there is something to do. If not the lane is closed, before anybody can come who
    /// relies on it.
    fn has_work(&mut self) -> bool {
        let mut desk = self.groups.desk();
        let has_work = desk.gathered() > 0;
        if !has_work {
            desk.close_lane();
            self.is_open = false;
        }
        has_work
    }

    /// The next group. Where there is none the lane is closed: others have taken what waited, or
    /// they are about the same keys, and will be here again.
    fn take(&mut self) -> Vec<Waiting<DB>> {
        let mut desk = self.groups.desk();
        let taken = desk.take();
        if taken.is_empty() {
            desk.close_lane();
            self.is_open = false;
        }
        taken
    }

    async fn serve(&self, group: Vec<Waiting<DB>>, turn: DB::Turn) {
        let keys = group.iter().filter_map(|one| Some(one.claim.as_ref()?.key.clone())).collect();
        let keys = Keys { groups: &self.groups, keys };
        let begun = self.begin(&group).await;
        let Ok((open, claims)) = begun else {
            drop((keys, turn));
            for waiting in group {
                let _ = waiting.turn.send(Turn::Trouble);
            }
            return;
        };
        let open = open.within(turn);
        let mut granted = Vec::with_capacity(group.len());
        for (waiting, claim) in group.into_iter().zip(claims) {
            match (claim, &waiting.claim) {
                (Some(Claim::Granted(grant)), Some(claim)) => {
                    let permit = Permit::new(&request(claim), grant);
                    granted.push((waiting, Some(permit)));
                }
                (None, _) => granted.push((waiting, None)),
                // Nothing of the group has to do with it.
                (Some(refusal), _) => drop(waiting.turn.send(Turn::Refused(refusal))),
            }
        }
        if granted.is_empty() {
            return self.strategy.rollback(open).await;
        }
        let size = granted.len();
        let (ran, permits) = (Vec::with_capacity(size), Vec::with_capacity(size));
        let to_come = granted.into_iter();
        let party = Party { to_come, ran, permits, replies: Vec::new(), size };
        self.hold(party, open, keys).await;
    }

    /// A transaction, and in it the answers to the claims, in the order of the group.
    async fn begin(
        &self,
        group: &[Waiting<DB>],
    ) -> Result<(Open<DB>, Vec<Option<Claim>>), StoreError> {
        let strategy = &self.strategy;
        let mut order: Vec<_> = (0..group.len()).filter(|at| group[*at].claim.is_some()).collect();
        // In the same order everywhere, so that no two groups wait for each other.
        let key = |at: &usize| group[*at].claim.as_ref().map(|c| (c.key.scope(), c.key.id()));
        order.sort_unstable_by(|one, other| key(one).cmp(&key(other)));
        let requests: Vec<_> =
            order.iter().filter_map(|at| group[*at].claim.as_deref()).map(request).collect();
        let told = |error: &StoreError| strategy.note(error);
        let call = async || {
            let mut open = Open::new(DB::begin(&strategy.pool, &strategy.options).await?);
            let claims = match requests.is_empty() {
                true => Vec::new(),
                false => DB::claim_all(&strategy.store, open.connection(), &requests).await?,
            };
            Ok((open, claims))
        };
        let begun = outage::insist(strategy.patience, "begin with a group", told, call).await;
        let (open, claims) = begun?;
        let mut answers = vec![None; group.len()];
        for (at, claim) in order.into_iter().zip(claims) {
            strategy.meters().claimed(&claim);
            answers[at] = Some(claim);
        }
        Ok((open, answers))
    }

    /// Has the handlers run, and commits if all of them are content.
    async fn hold(&self, mut party: Party<DB>, open: Open<DB>, keys: Keys<'_, DB>) {
        let until = (party.size > 1).then(|| Instant::now() + self.groups.options.time_limit);
        let fates = match party.run(self, open, until).await {
            Ok(open) => self.commit(&mut party, open).await,
            Err(failure) => self.give_up(&mut party, failure).await,
        };
        let ran = std::mem::take(&mut party.ran);
        {
            let mut desk = self.groups.desk();
            match party.size > 1 && fates.last().is_some_and(|fate| matches!(fate, Fate::Again)) {
                true => desk.shrink(party.size),
                false => desk.grow(party.size),
            }
            // At once with the keys: nobody else's copy comes in between.
            desk.put_back(party.to_come.map(|(waiting, _)| waiting));
        }
        // Before anybody is told, who may come again with the same key.
        drop(keys);
        for (fate, told) in fates.into_iter().zip(ran) {
            // Who has left is shown its message again.
            let _ = told.send(fate);
        }
    }

    /// Completes and commits: what that means for each that ran.
    async fn commit(&self, party: &mut Party<DB>, mut open: Open<DB>) -> Vec<Fate> {
        let (strategy, size) = (&self.strategy, party.ran.len());
        let all = |fate: fn() -> Fate| (0..size).map(|_| fate()).collect();
        let meters = self.groups.meters(strategy.store.name());
        let (permits, replies) = (&party.permits, &party.replies);
        let completing = async {
            if permits.is_empty() {
                return Ok(true);
            }
            let all = DB::complete_all(&strategy.store, open.connection(), permits).await?;
            for (permit, reply) in replies {
                DB::answer(&strategy.store, open.connection(), permit, reply).await?;
            }
            Ok(all)
        };
        let answer = outage::ask(strategy.patience, "complete the claims of a group", completing);
        let reason = match answer.await {
            Ok(true) => None,
            Ok(false) => Some(HandlerError::retryable(TxMisused::Ended)),
            // As where a handler goes on after a statement of its own has failed.
            Err(error) if error.kind() == StoreErrorKind::Permanent => {
                Some(HandlerError::retryable(error))
            }
            Err(error) => {
                strategy.note(&error);
                strategy.rollback(open).await;
                meters.rolled_back.increment(1);
                return all(|| Fate::Trouble);
            }
        };
        if let Some(reason) = reason {
            strategy.rollback(open).await;
            meters.rolled_back.increment(1);
            return blame(size, reason);
        }
        #[expect(clippy::cast_precision_loss, reason = "no group is that large")]
        meters.size.record(size as f64);
        let error = match timeout(strategy.patience.answer, open.commit()).await {
            Ok(Ok(())) => {
                meters.committed.increment(1);
                return all(|| Fate::Committed);
            }
            Ok(Err(CommitError::Savepoint)) => Err(HandlerError::retryable(TxMisused::Savepoint)),
            Ok(Err(CommitError::Failed(error))) => match DB::uncommitted(&error) {
                Uncommitted::Refused => Err(HandlerError::retryable(error)),
                Uncommitted::Aborted => Err(HandlerError::retryable(TxMisused::Aborted)),
                Uncommitted::Ended => Err(HandlerError::retryable(TxMisused::Ended)),
                Uncommitted::Unknown => Ok(error_chain(&error)),
            },
            Err(_) => Ok(format!("no answer within {:?}", strategy.patience.answer)),
        };
        match error {
            Err(reason) => {
                meters.rolled_back.increment(1);
                blame(size, reason)
            }
            Ok(error) => {
                meters.uncertain.increment(1);
                strategy.meters().uncertain.increment(size as u64);
                tracing::warn!(
                    messages = size,
                    error,
                    "it is not known whether the commit of a group took effect; its messages are \
                     shown again, and the records decide"
                );
                all(|| Fate::Trouble)
            }
        }
    }

    /// Rolls back: what that means for each that ran.
    async fn give_up(&self, party: &mut Party<DB>, failure: Failure<DB>) -> Vec<Fate> {
        let ran = party.ran.len();
        let mut fates: Vec<_> = (0..ran).map(|_| Fate::Again).collect();
        // Who ran first has seen nothing of its neighbours, so what it says holds. All others may
        // have seen what is now undone.
        let first = if ran == 1 { fates.first_mut() } else { None };
        let open = match failure {
            Failure::Last { open, end } => {
                if let (Some(first), End::Bad) = (first, end) {
                    *first = Fate::RolledBack;
                }
                open
            }
            Failure::Misused { open, how } => {
                if let Some(first) = first {
                    *first = Fate::Failed(HandlerError::retryable(how));
                }
                open
            }
            Failure::Left { open } => Some(open),
            Failure::Trouble => {
                fates = (0..ran).map(|_| Fate::Trouble).collect();
                None
            }
        };
        if let Some(open) = open {
            self.undo(open, party).await;
        }
        self.groups.meters(self.strategy.store.name()).rolled_back.increment(1);
        if party.size > 1 {
            tracing::debug!(
                messages = party.size,
                ran,
                "a group is rolled back; those that ran run again, each alone"
            );
        }
        fates
    }
}

impl<DB: TransactionalDatabase> Lane<DB> {
    /// Rolls back. What a handler has committed by itself cannot be undone: those whose effects are
    /// in it are done then, and do not run again.
    async fn undo(&self, mut open: Open<DB>, party: &Party<DB>) {
        let strategy = &self.strategy;
        if party.size > 1 && open.is_plain().await {
            let looking = DB::is_ended(open.connection());
            let ended = outage::ask(strategy.patience, "look for a transaction", looking).await;
            if let Ok(true) = ended {
                return self.save(open, party).await;
            }
        }
        strategy.rollback(open).await;
    }

    /// Whether the next handler may have it.
    async fn check(&self, mut open: Open<DB>, party: &Party<DB>) -> Result<Open<DB>, Failure<DB>> {
        let strategy = &self.strategy;
        let looking = DB::is_ended(open.connection());
        match outage::ask(strategy.patience, "look for a transaction", looking).await {
            Ok(false) => Ok(open),
            Ok(true) => {
                self.save(open, party).await;
                Err(Failure::Misused { open: None, how: TxMisused::Ended })
            }
            Err(error) => {
                strategy.note(&error);
                Err(Failure::Trouble)
            }
        }
    }

    async fn save(&self, mut open: Open<DB>, party: &Party<DB>) {
        let strategy = &self.strategy;
        tracing::warn!(
            messages = party.ran.len(),
            "a handler has ended the transaction of a group by itself; what is committed of it stays"
        );
        let completing = DB::complete_all(&strategy.store, open.connection(), &party.permits);
        let asked = outage::ask(strategy.patience, "complete the claims of a group", completing);
        match asked.await {
            // Without records to complete it was a rollback, and there is nothing to commit.
            Ok(_) => drop(timeout(strategy.patience.answer, open.commit()).await),
            Err(error) => strategy.note(&error),
        }
    }
}

/// Nobody's fault, unless there is one only.
fn blame(size: usize, reason: HandlerError) -> Vec<Fate> {
    match size {
        1 => vec![Fate::Failed(reason)],
        _ => (0..size).map(|_| Fate::Again).collect(),
    }
}

impl<DB: TransactionalDatabase> Party<DB> {
    /// Has one handler run after the other, all in this transaction.
    async fn run(
        &mut self,
        lane: &Lane<DB>,
        mut open: Open<DB>,
        until: Option<Instant>,
    ) -> Result<Open<DB>, Failure<DB>> {
        while let Some((waiting, permit)) = self.to_come.next() {
            let (report, reported) = oneshot::channel();
            let (told, fate) = oneshot::channel();
            let run = Run { open, until, report, fate };
            if let Err(Turn::Run(run)) = waiting.turn.send(Turn::Run(run)) {
                return Err(Failure::Left { open: run.open });
            }
            self.ran.push(told);
            self.permits.extend(permit.clone());
            open = match reported.await {
                Ok(Report { open: Some(open), end: End::Good, reply }) => {
                    self.replies.extend(permit.zip(reply));
                    open
                }
                Ok(Report { open, end, .. }) => return Err(Failure::Last { open, end }),
                // It was dropped, and its transaction with it.
                Err(_) => return Err(Failure::Last { open: None, end: End::Unfinished }),
            };
            if !open.is_plain().await {
                return Err(Failure::Misused { open: Some(open), how: TxMisused::Savepoint });
            }
            if self.to_come.len() > 0 {
                open = lane.check(open, self).await?;
            }
        }
        Ok(open)
    }
}

/// The claim, as a store is asked for it.
fn request(claim: &ClaimCall) -> ClaimRequest<'_> {
    ClaimRequest {
        key: claim.key.clone(),
        owner: claim.owner,
        fingerprint: claim.fingerprint,
        lease: claim.lease,
        claimant: Claimant {
            service: &claim.service,
            subscription: &claim.subscription,
            instance: &claim.instance,
        },
        correlation_id: claim.correlation_id.as_deref(),
        message_type: &claim.message_type,
    }
}

/// What a group is under way about.
struct Keys<'a, DB: TransactionalDatabase> {
    groups: &'a Groups<DB>,
    keys: Vec<RecordKey>,
}

impl<DB: TransactionalDatabase> Drop for Keys<'_, DB> {
    fn drop(&mut self) {
        self.groups.desk().over(&self.keys);
    }
}

impl<DB: TransactionalDatabase> Drop for Lane<DB> {
    fn drop(&mut self) {
        if self.is_open {
            self.groups.desk().close_lane();
        }
    }
}
