//! A lane: one group after the other, each in a transaction.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::super::database::{TransactionalDatabase, Transactions as _, TurnOf};
use super::super::open::Open;
use super::super::{Transactional, outage};
use super::Groups;
use super::desk::{Fate, Turn, Waiting};
use super::party::Party;
use crate::protocol::Claim;
use crate::store::claim_call::ClaimCall;
use crate::store::{ClaimRequest, Claimant, Permit, RecordKey, StoreError};

/// Commits groups for as long as messages wait.
pub(super) struct Lane<DB: TransactionalDatabase> {
    pub(super) strategy: Transactional<DB>,
    pub(super) groups: Arc<Groups<DB>>,
    is_open: bool,
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
            let turn = DB::Transactions::turn(&self.strategy.store, &self.strategy.options).await;
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
        // Of a full group, and of one that another lane has taken meanwhile, there is nothing to wait for.
        while let Some(since) = self.groups.gathers_since()
            && since.elapsed() < linger
        {
            tokio::select! {
                _ = timeout_at(since + linger, self.groups.full.notified()) => {}
                () = self.groups.flushed() => return,
            }
        }
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

    async fn serve(&self, group: Vec<Waiting<DB>>, turn: TurnOf<DB>) {
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
        let mut party = Party { to_come, ran, permits, replies: Vec::new(), size };
        let fates = match self.groups.terms {
            None => self.hold(&mut party, open).await,
            Some(_) => self.hold_batch(&mut party, open).await,
        };
        self.end(party, fates, keys);
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
            let mut open =
                Open::new(DB::Transactions::begin(&strategy.pool, &strategy.options).await?);
            let claims = match requests.is_empty() {
                true => Vec::new(),
                false => {
                    let claim = async |on: &mut DB::Connection| {
                        DB::Transactions::claim_all(&strategy.store, on, &requests).await
                    };
                    open.ask(claim).await?
                }
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

    /// Has the handlers run one after the other, and commits if all of them are content.
    async fn hold(&self, party: &mut Party<DB>, open: Open<DB>) -> Vec<Fate> {
        let until = (party.size > 1).then(|| Instant::now() + self.groups.options.time_limit);
        match party.run(self, open, until).await {
            Ok(open) => self.commit(party, open).await,
            Err(failure) => self.give_up(party, failure).await,
        }
    }

    /// Tells each what became of its transaction.
    fn end(&self, mut party: Party<DB>, fates: Vec<Fate>, keys: Keys<'_, DB>) {
        let ran = std::mem::take(&mut party.ran);
        {
            let mut desk = self.groups.desk();
            let failed = |fate: &Fate| matches!(fate, Fate::Again { alone: true });
            match party.size > 1 && fates.last().is_some_and(failed) {
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
        trace: claim.trace,
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
