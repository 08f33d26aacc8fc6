//! The databases that records and effects of a house are in, each in a file of its own.

mod mysql;
mod postgres;
mod sqlite;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use mmate_core::{Attempt, HandlerError, Json, Meta, Outcome, Subscription, SubscriptionBuilder};
use mmate_idempotency::store::ManualClock;
use mmate_idempotency::{
    Fingerprint, Key, MissingId, Store, Tracked, Transactional, TransactionalDatabase, Tx,
};
use std::sync::Arc;

pub(crate) use self::mysql::OnMySql;
pub(crate) use self::postgres::OnPostgres;
pub(crate) use self::sqlite::OnSqlite;
use crate::effects::{Effect, Inside, Probe};
use crate::house::{Phase, Script, Visit};

/// A place in a database that no other house has.
#[async_trait]
pub(crate) trait Database: Send + Sync {
    /// Makes the table of effects.
    async fn prepare(&self);

    /// The store of a process, with connections of its own.
    async fn store(&self, clock: Option<&ManualClock>) -> Arc<dyn Store>;

    /// A store on a pool of so many connections.
    async fn store_on_pool(&self, connections: u32) -> Arc<dyn Store>;

    /// The builder with `Transactional`, on a pool of its own.
    async fn guarded(
        &self,
        builder: SubscriptionBuilder,
        by: By,
        clock: Option<&ManualClock>,
    ) -> SubscriptionBuilder;

    /// The same with a handler whose effects go into the table, within the transaction.
    async fn transactional(
        &self,
        builder: SubscriptionBuilder,
        by: By,
        clock: Option<&ManualClock>,
        handling: Handling,
    ) -> Subscription;

    /// What is in the table.
    async fn effects(&self) -> Vec<Effect>;
}

/// How messages are told apart.
#[derive(Debug, Clone, Default)]
pub(crate) struct By {
    pub(crate) key: Key,
    pub(crate) missing: MissingId,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) reply_limit: Option<usize>,
}

impl By {
    pub(crate) fn tracked(self, strategy: Tracked) -> Tracked {
        let strategy =
            strategy.key(self.key).missing_id(self.missing).fingerprint(self.fingerprint);
        match self.reply_limit {
            Some(bytes) => strategy.reply_limit(bytes),
            None => strategy,
        }
    }

    fn transactional<DB: TransactionalDatabase>(
        self,
        strategy: Transactional<DB>,
    ) -> Transactional<DB> {
        let strategy =
            strategy.key(self.key).missing_id(self.missing).fingerprint(self.fingerprint);
        match self.reply_limit {
            Some(bytes) => strategy.reply_limit(bytes),
            None => strategy,
        }
    }
}

/// What a handler does beside its effect.
pub(crate) struct Handling {
    pub(crate) script: Script,
    pub(crate) inside: Inside,
}

/// Has an effect in the table, within the transaction.
type Insert<DB> = for<'a> fn(&'a mut Tx<DB>, Effect) -> BoxFuture<'a, sqlx::Result<()>>;

/// A handler whose effects go into the table.
fn inserting<DB: TransactionalDatabase>(
    Handling { script, inside }: Handling,
    insert: Insert<DB>,
) -> impl Fn(Meta, Attempt, Json<Probe>, Tx<DB>) -> BoxFuture<'static, Result<Outcome, HandlerError>>
+ Send
+ Sync
+ 'static {
    move |meta, Attempt(attempt), _probe, mut tx| {
        let script = Arc::clone(&script);
        let id = meta.id.map(|id| id.to_string()).unwrap_or_default();
        let entered = inside.enter(&id);
        Box::pin(async move {
            let _entered = entered;
            let visit = |phase| Visit { id: id.clone(), phase };
            let outcome = script(visit(Phase::BeforeEffect)).await?;
            if outcome != Outcome::Done {
                return Ok(outcome);
            }
            insert(&mut tx, Effect { id: id.clone(), attempt }).await?;
            script(visit(Phase::AfterEffect)).await
        })
    }
}
