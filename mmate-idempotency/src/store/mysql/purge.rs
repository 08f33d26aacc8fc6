//! Forgetting what is over.

use sqlx::Row as _;

use super::batch::no_answer;
use super::failure::{failed, unreached};
use super::records::Records;
use super::session::{ANSWERS_OF_BEGIN, BEGIN, Session, ask};
use super::statement::Value;
use crate::store::StoreError;

const PURGING: &str = "purge records";

/// So many are removed in one transaction: claims that wait for one of them wait for the rest.
const AT_ONCE: usize = 100;

impl Records {
    /// Looks for records that are over without locking any, and removes each by its key if it still
    /// is, in the order of the keys: the way and the order in which claims come to them, so that
    /// neither they nor other instances wait crosswise.
    pub(super) async fn purge(&self, at_most: u32) -> Result<u64, StoreError> {
        let mut over = self.over(at_most).await?;
        over.sort_unstable();
        let mut removed = 0;
        for part in over.chunks(AT_ONCE) {
            let mut statements = BEGIN.to_owned();
            for (scope, id) in part {
                statements.push_str("; ");
                let values = [self.now(), Value::Bytes(scope), Value::Bytes(id)];
                self.table.purge.write(&mut statements, &values);
            }
            statements.push_str("; COMMIT");
            let answers = self.transact(PURGING, &statements).await?;
            let answers = answers.iter().skip(ANSWERS_OF_BEGIN).take(part.len());
            removed += answers.map(|answer| answer.matched).sum::<u64>();
        }
        Ok(removed)
    }

    /// The keys of up to so many records that are over.
    async fn over(&self, at_most: u32) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        let mut statement = String::new();
        let values = [self.now(), Value::Number(at_most.into())];
        self.table.over.write(&mut statement, &values);
        let mut session = Session::of(&self.pool).await.map_err(unreached(PURGING))?;
        let mut answers = ask(&mut session, statement).await.map_err(failed(PURGING))?;
        session.settled();
        let rows = answers.pop().ok_or_else(no_answer)?.rows;
        let keys = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        keys.collect::<sqlx::Result<_>>().map_err(failed(PURGING))
    }
}
