//! A group that is a batch: one handler of all its messages.

use futures_util::future::join_all;
use mmate_core::{Assembly, HandlerError};
use tokio::sync::oneshot;

use super::super::database::TransactionalDatabase;
use super::super::misuse::TxMisused;
use super::super::open::{Host, Open, Slot};
use super::desk::{BatchReport, End, Fate, Sit, Turn};
use super::ending::blame;
use super::lane::Lane;
use super::party::Party;
use crate::outbox::Written;
use crate::store::Store;

/// What the arguments of a batch handler are made of.
pub(in super::super) struct BatchTx<DB: TransactionalDatabase> {
    pub(in super::super) slot: Slot<DB>,
    pub(in super::super) outbox: Written,
}

impl<DB: TransactionalDatabase> Lane<DB> {
    /// Has a batch handled, and commits if all of it is done.
    pub(super) async fn hold_batch(&self, party: &mut Party<DB>, open: Open<DB>) -> Vec<Fate> {
        let host = Host::new(open);
        let outbox = Written::default();
        let shared = BatchTx { slot: host.slot(), outbox: outbox.clone() };
        let assembly = Assembly::new(party.size, shared);
        let mut reports = Vec::with_capacity(party.size);
        for (place, (waiting, permit)) in party.to_come.by_ref().enumerate() {
            let (report, reported) = oneshot::channel();
            let (told, fate) = oneshot::channel();
            // Who has left gives up its seat by that, and makes no report.
            let seat = assembly.seat(place);
            let sit = Sit { seat, outbox: outbox.clone(), report, fate };
            let _ = waiting.turn.send(Turn::Sit(sit));
            party.ran.push(told);
            party.permits.extend(permit);
            reports.push(reported);
        }
        let reports = join_all(reports).await;
        let open = host.close();
        let is_good = |report: &Result<BatchReport, _>| {
            report.as_ref().is_ok_and(|report| report.end == End::Good)
        };
        let (alone, broken) = (party.size == 1, assembly.is_broken());
        if reports.iter().all(is_good) && (alone || !broken) {
            return match open {
                Some(open) => self.commit(party, open).await,
                None => blame(party.size, HandlerError::retryable(TxMisused::Kept)),
            };
        }
        if let Some(open) = open {
            self.undo(open, party).await;
        }
        self.groups.meters(self.strategy.store.name()).rolled_back.increment(1);
        let fate = |report: Result<BatchReport, _>| match report {
            Ok(BatchReport { took_part: false, end: End::Bad, .. }) => Fate::RolledBack,
            Ok(BatchReport { took_part: false, .. }) => Fate::Again { alone: true },
            Ok(_) if alone => Fate::RolledBack,
            // Nothing was handled: they are together again, without who had no part in it.
            _ => Fate::Again { alone: !broken },
        };
        reports.into_iter().map(fate).collect()
    }
}
