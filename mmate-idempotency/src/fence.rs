//! Keeping the late effects of paused processes out.
//!
//! A lease holds until its end, by the store's clock. A process that is paused (by the machine, the
//! network, a long collection of garbage elsewhere) does not know that its lease is over, and the
//! first thing it does when it goes on may be the write that it was about to send. Nothing on its
//! side prevents that: only the place where the effect is can refuse it, by the *fence*, a number
//! that is higher with each claim of a key.
//!
//! - **SQL**: keep the highest fence in the row, and make it a condition of the write.
//! - **Redis**: [`REDIS_SET_IF_NEWER`].
//! - **HTTP**: send the fence in the header [`HEADER`], for who checks it; and an `Idempotency-Key`
//!   ([`RecordKey::idempotency_key`]), which is *not* made of the fence: all attempts at one message
//!   have the same.
//!
//! ```
//! # #[cfg(feature = "sqlite")]
//! # mod example {
//! use mmate_core::{HandlerError, Json, State};
//! use mmate_idempotency::Permit;
//! use sqlx::SqlitePool;
//!
//! # pub
//! async fn set_price(
//!     Json((sku, cents)): Json<(String, i64)>,
//!     permit: Permit,
//!     State(pool): State<SqlitePool>,
//! ) -> Result<(), HandlerError> {
//!     let written = sqlx::query("UPDATE prices SET cents = ?, last_fence = ? WHERE sku = ? AND last_fence < ?")
//!         .bind(cents)
//!         .bind(permit.fence_i64())
//!         .bind(sku)
//!         .bind(permit.fence_i64())
//!         .execute(&pool)
//!         .await?;
//!     if written.rows_affected() == 0 {
//!         // Somebody was here with a later claim, or there is no such row.
//!         return Err(HandlerError::retryable("the price was set by a later claim"));
//!     }
//!     Ok(())
//! }
//! # }
//! ```
//!
//! A fence compares the claims of *one* key. So the row that is guarded must be named by that key: a
//! row of an account by a lock on the account, and not by the ids of the messages about it.

use std::fmt::Write;

use mmate_core::{Context, FromContext, HandlerError, Requirement};
use sha2::{Digest as _, Sha256};

use crate::store::{Permit, RecordKey};

/// The name of the header for the fence in a request to another service.
pub const HEADER: &str = "fencing-token";

/// A script for Redis that sets a value only if the fence is above that of the last one who did.
///
/// `KEYS[1]` is the key, a hash with the fields `fence` and `value`; `ARGV[1]` is the fence in
/// decimal, `ARGV[2]` the value. It returns 1 if the value was set, and 0 if it was refused.
///
/// Numbers are compared by their digits: Lua's own are exact up to 2⁵³ only.
pub const REDIS_SET_IF_NEWER: &str = "\
local had = redis.call('HGET', KEYS[1], 'fence')
local fence = ARGV[1]
if had and (#fence < #had or (#fence == #had and fence <= had)) then
    return 0
end
redis.call('HSET', KEYS[1], 'fence', fence, 'value', ARGV[2])
return 1
";

impl RecordKey {
    /// The value of an `Idempotency-Key` header for one of the calls that the message's handler makes
    /// to another service, so that this service can tell a repetition from a second call.
    ///
    /// It is a function of scope, id and the name of the call: all attempts at a message have the
    /// same, whoever makes them, and two calls within one handler have two. 32 hexadecimal digits.
    ///
    /// As an argument of a handler, with `Tracked` and with `Transactional`:
    ///
    /// ```
    /// use mmate_core::HandlerError;
    /// use mmate_idempotency::store::RecordKey;
    ///
    /// async fn pay(record: RecordKey) -> Result<(), HandlerError> {
    ///     let header = ("idempotency-key", record.idempotency_key("charge-card"));
    /// #   let _ = header;
    ///     Ok(())
    /// }
    /// # let _ = pay;
    /// ```
    #[must_use]
    pub fn idempotency_key(&self, call: &str) -> String {
        let mut hash = Sha256::new();
        for part in [self.scope(), self.id(), call] {
            // The length first, so that no byte can be of the one or of the other.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut text = String::with_capacity(32);
        for byte in &hash.finalize()[..16] {
            write!(text, "{byte:02x}").expect("writing into a string does not fail");
        }
        text
    }
}

impl Permit {
    /// The [fence](Self::fence), for the signed 64-bit column of a database. No store gives a fence
    /// that such a column cannot hold.
    #[must_use]
    pub fn fence_i64(&self) -> i64 {
        i64::try_from(self.fence()).unwrap_or(i64::MAX)
    }

    /// That of the [key](Self::key); see [`RecordKey::idempotency_key`].
    #[must_use]
    pub fn idempotency_key(&self, call: &str) -> String {
        self.key().idempotency_key(call)
    }
}

impl FromContext for RecordKey {
    async fn from_context(context: &Context) -> Result<Self, HandlerError> {
        let of_permit = || context.extension::<Permit>().map(Permit::key);
        let key = context.extension::<Self>().or_else(of_permit).cloned();
        key.ok_or_else(|| HandlerError::retryable("the message runs without a record"))
    }

    fn requirement() -> Option<Requirement> {
        Some(Requirement::new::<Self>(
            "RecordKey",
            "guard the subscription with .idempotent(…) of a strategy that keeps records",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idempotency_key_is_the_same_for_the_same_call_and_no_other() {
        let key = |scope: &str, id: &str| RecordKey::new(scope, id).unwrap();
        let one = key("s/q", "a:b").idempotency_key("c");
        // Other versions must make the same.
        assert_eq!(one, "bcc6dd2a020c9fed2d154da5d4b27094");
        assert_eq!(one, key("s/q", "a:b").idempotency_key("c"));
        let others = [
            key("s/q", "a").idempotency_key("b:c"),
            key("s/q", "a:b").idempotency_key("d"),
            key("s/r", "a:b").idempotency_key("c"),
            key("s/qa", ":b").idempotency_key("c"),
        ];
        assert!(!others.contains(&one));
    }
}
