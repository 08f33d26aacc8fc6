//! What was lost, what took effect twice: told by the tables, not by anybody's counters.

use std::collections::{HashMap, HashSet};

use crate::database::{Database, Rows};
use crate::input::Ledger;
use crate::options::StrategyChoice;

/// Message ids that a subscription's dead-letter queue holds, by subscription.
pub(crate) type DeadLetters = HashMap<String, HashSet<String>>;

/// What the tables say.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Rows in the effect table.
    pub(crate) effects: u64,
    /// Published messages that have no effect and are no dead letters.
    pub(crate) lost: Vec<String>,
    /// Messages with more than one effect.
    pub(crate) double: Vec<String>,
    /// Effects beyond the first of each message.
    surplus: u64,
}

/// Holds the tables against what was published.
pub(crate) async fn verdict(
    database: &Database,
    ledger: &Ledger,
    dead: &DeadLetters,
) -> sqlx::Result<Verdict> {
    let Rows { effects, audited } = database.rows().await?;
    let mut verdict = Verdict {
        effects: effects.iter().map(|(_, rows)| rows.unsigned_abs()).sum(),
        lost: missing(&effects, &audited, ledger, dead),
        ..Verdict::default()
    };
    for (id, rows) in effects.into_iter().chain(audited) {
        if rows > 1 {
            verdict.surplus += rows.unsigned_abs() - 1;
            verdict.double.push(id);
        }
    }
    Ok(verdict)
}

/// How many published messages have neither an effect nor a dead letter yet.
pub(crate) async fn outstanding(
    database: &Database,
    ledger: &Ledger,
    dead: &DeadLetters,
) -> sqlx::Result<usize> {
    let Rows { effects, audited } = database.rows().await?;
    Ok(missing(&effects, &audited, ledger, dead).len())
}

fn missing(
    effects: &[(String, i64)],
    audited: &[(String, i64)],
    ledger: &Ledger,
    dead: &DeadLetters,
) -> Vec<String> {
    let ids = |rows: &[(String, i64)]| rows.iter().map(|(id, _)| id.clone()).collect();
    let (effects, audited): (HashSet<String>, HashSet<String>) = (ids(effects), ids(audited));
    let is_dead = |id: &str, of_audit: bool| {
        let mut queues = dead.iter().filter(|(name, _)| (*name == crate::shop::AUDIT) == of_audit);
        queues.any(|(_, ids)| ids.contains(id))
    };
    let mut lost = Vec::new();
    for (id, overlapping) in &ledger.ids {
        if *overlapping && !effects.contains(id) && !is_dead(id, false) {
            lost.push(id.clone());
        }
        if !audited.contains(id) && !is_dead(id, true) {
            lost.push(id.clone());
        }
    }
    lost
}

impl Verdict {
    pub(crate) fn is_clean(&self) -> bool {
        self.lost.is_empty() && self.double.is_empty()
    }

    /// Says on standard error what is wrong, if anything is.
    pub(crate) fn explain(&self, strategy: StrategyChoice) {
        if !self.lost.is_empty() {
            let examples = self.lost.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
            eprintln!("orders: {} messages are lost, such as {examples}", self.lost.len());
        }
        if !self.double.is_empty() {
            eprintln!(
                "orders: {} messages took effect more than once; {} effects are too many",
                self.double.len(),
                self.surplus
            );
            if strategy == StrategyChoice::None {
                eprintln!(
                    "orders: that is what overlapping subscriptions, a publisher that repeats \
                     itself and a broker that redelivers come to without idempotency"
                );
            }
        }
    }
}
