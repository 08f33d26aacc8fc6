//! Who is inside of a lock, as it is written down by those who are.

use async_trait::async_trait;
use mmate_core::{Context, FromContext, HandlerError, Middleware, Next, Outcome};
use mmate_idempotency::LockPermit;
use sqlx::SqlitePool;

use super::cell::{Cell, Fault};

/// The key that a message's lock is of: so many messages in a row share one.
pub(crate) fn key_of(id: &str) -> String {
    const IN_A_ROW: u64 = 4;
    let digits: String = id.chars().filter(char::is_ascii_digit).collect();
    (digits.parse::<u64>().unwrap_or_default() / IN_A_ROW).to_string()
}

/// Rows are in the order in which they were committed.
pub(crate) const TABLE: &str = "visits (seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, \
                                fence INTEGER NOT NULL, instance TEXT NOT NULL, \
                                enters INTEGER NOT NULL)";

/// Within the lock: what comes in writes that down before it goes on, and again before it leaves.
pub(crate) struct Visiting {
    pub(crate) pool: SqlitePool,
    pub(crate) instance: String,
}

impl Visiting {
    async fn note(&self, id: &str, lock: &LockPermit, enters: bool) -> Result<(), HandlerError> {
        let insert = "INSERT INTO visits (id, fence, instance, enters) VALUES (?, ?, ?, ?)";
        let query = sqlx::query(insert).bind(id).bind(lock.fence_i64()).bind(&self.instance);
        query.bind(enters).execute(&self.pool).await?;
        Ok(())
    }
}

#[async_trait]
impl Middleware for Visiting {
    async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
        let id = context.message_id().map(ToString::to_string).unwrap_or_default();
        let lock = LockPermit::from_context(context).await?;
        self.note(&id, &lock, true).await?;
        let outcome = next.run(context).await;
        self.note(&id, &lock, false).await?;
        outcome
    }
}

/// One who came in, or left.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) id: String,
    pub(crate) fence: i64,
    pub(crate) instance: String,
    pub(crate) enters: bool,
}

/// What the steps tell.
#[derive(Debug, Default)]
pub(crate) struct Overlaps {
    /// Two who were inside of one lock, or a fence that did not rise.
    pub(crate) wrong: Vec<String>,
    /// How many came in while somebody was inside who stood still past the lease.
    pub(crate) excused: usize,
}

impl Step {
    fn key(&self) -> String {
        key_of(&self.id)
    }
}

/// Looks for two who were inside of one lock. Of a process that was killed the last visit has no end, and one that
/// stood still was overtaken; both are known by the lower fence.
pub(crate) fn overlaps(cell: Cell, doomed: &str, steps: &[Step]) -> Overlaps {
    let mut overlaps = Overlaps::default();
    let mut inside: Vec<&Step> = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        if !step.enters {
            inside.retain(|other| (&other.id, other.fence) != (&step.id, step.fence));
            continue;
        }
        // A process has one message in hand: what it did before is over, if it could not say so.
        inside.retain(|other| other.instance != step.instance);
        let stood_still = |one: &Step| cell.fault == Fault::Delayed && one.instance == doomed;
        let is_dead = |one: &Step| {
            let mut later = steps[at..].iter();
            cell.fault == Fault::Abort
                && one.instance == doomed
                && later.all(|other| other.instance != doomed)
        };
        for other in inside.iter().filter(|other| other.key() == step.key()) {
            let (older, newer) =
                if other.fence < step.fence { (*other, step) } else { (step, *other) };
            match () {
                () if older.fence == newer.fence => {}
                () if is_dead(older) => continue,
                () if stood_still(older) => {
                    overlaps.excused += 1;
                    continue;
                }
                () => {}
            }
            overlaps.wrong.push(format!("both inside: {older:?} and {newer:?}"));
        }
        let same_lock = |other: &&Step| other.enters && other.key() == step.key();
        let before = steps[..at].iter().filter(same_lock).max_by_key(|other| other.fence);
        if let Some(before) = before
            && before.fence >= step.fence
            && !stood_still(step)
        {
            overlaps.wrong.push(format!("the fence did not rise: {before:?}, then {step:?}"));
        }
        inside.push(step);
    }
    overlaps
}
