//! The records in a database: what is asked of them, in SQL.

use std::time::Duration;

use sqlx::MySqlPool;

use super::statement::Value;
use super::table::Table;
use crate::protocol::Retention;
use crate::store::claim_call::ClaimCall;
use crate::store::sql::{Aim, millis};
use crate::store::{ManualClock, Permit, RecordKey};

/// The records in a database, and how they are kept.
#[derive(Clone)]
pub(super) struct Records {
    pub(super) pool: MySqlPool,
    pub(super) table: Table,
    pub(super) retention: Retention,
    pub(super) clock: Option<ManualClock>,
}

/// For how long a claim is held, and how long its record is kept if nobody comes back to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Term {
    lease: i64,
    kept: i64,
}

impl Records {
    pub(super) fn term(&self, aim: Aim, lease: Duration) -> Term {
        match aim {
            Aim::Work => {
                let lease = millis(lease);
                Term { lease, kept: lease.saturating_add(millis(self.retention.of_failures())) }
            }
            // It is completed in the same transaction: nobody else ever sees it.
            Aim::Done => Term { lease: 0, kept: 3_600_000 },
        }
    }

    /// Claims, and a look at what became of them.
    pub(super) fn write_claims(&self, out: &mut String, claims: &[(&ClaimCall, Term)]) {
        let now = self.now();
        let traces: Vec<Option<String>> =
            claims.iter().map(|(claim, _)| claim.trace.map(|trace| trace.to_string())).collect();
        let rows: Vec<[Value<'_>; 13]> = claims
            .iter()
            .zip(&traces)
            .map(|((claim, term), trace)| {
                let correlation_id = claim.correlation_id.as_deref().map(audited);
                let fingerprint = claim.fingerprint.as_ref();
                [
                    now,
                    Value::Bytes(claim.key.scope().as_bytes()),
                    Value::Bytes(claim.key.id().as_bytes()),
                    audited(&claim.service),
                    audited(&claim.subscription),
                    audited(&claim.instance),
                    correlation_id.unwrap_or(Value::Null),
                    audited(&claim.message_type),
                    fingerprint.map(|digest| &digest.as_bytes()[..]).into(),
                    Value::Bytes(claim.owner.as_bytes()),
                    Value::Number(term.lease),
                    Value::Number(term.kept),
                    trace.as_deref().map_or(Value::Null, Value::Text),
                ]
            })
            .collect();
        self.table.claim.write(out, &rows);
        out.push_str("; ");
        self.table.look.write(out, &rows);
    }

    pub(super) fn write_heartbeat(&self, out: &mut String, permit: &Permit, lease: Duration) {
        let [now, scope, id, owner, _] = self.of_holder(permit);
        let Term { lease, kept } = self.term(Aim::Work, lease);
        let values = [now, scope, id, owner, Value::Number(lease), Value::Number(kept)];
        self.table.heartbeat.write(out, &values);
    }

    pub(super) fn write_complete(&self, out: &mut String, permit: &Permit, reply: Option<&[u8]>) {
        let [now, scope, id, owner, fence] = self.of_holder(permit);
        let kept = self.retention.of_done().map(millis).into();
        self.table.complete.write(out, &[now, scope, id, owner, fence, kept, reply.into()]);
    }

    pub(super) fn write_release(&self, out: &mut String, permit: &Permit) {
        let [now, scope, id, owner, fence] = self.of_holder(permit);
        let kept = Value::Number(millis(self.retention.of_failures()));
        self.table.release.write(out, &[now, scope, id, owner, fence, kept]);
    }

    pub(super) fn write_answer(&self, out: &mut String, permit: &Permit, reply: &[u8]) {
        let [now, scope, id, owner, fence] = self.of_holder(permit);
        self.table.answer.write(out, &[now, scope, id, owner, fence, Value::Bytes(reply)]);
    }

    /// What a clock for tests says; the database's own is asked where this is null.
    pub(super) fn now(&self) -> Value<'static> {
        self.millis().into()
    }

    pub(super) fn millis(&self) -> Option<i64> {
        let now = self.clock.as_ref()?.now().as_millis();
        Some(i64::try_from(now).unwrap_or(i64::MAX))
    }

    fn of_holder<'p>(&self, permit: &'p Permit) -> [Value<'p>; 5] {
        let fence = i64::try_from(permit.holder.fence).unwrap_or(i64::MAX);
        [
            self.now(),
            Value::Bytes(permit.key.scope().as_bytes()),
            Value::Bytes(permit.key.id().as_bytes()),
            Value::Bytes(permit.holder.owner.as_bytes()),
            Value::Number(fence),
        ]
    }
}

/// A text that is there for who audits the records: what its column cannot hold is left out. Scope
/// and id never come here.
fn audited(text: &str) -> Value<'_> {
    const CHARACTERS: usize = 255;
    let end = text.char_indices().nth(CHARACTERS).map_or(text.len(), |(at, _)| at);
    Value::Text(&text[..end])
}

/// The most bytes of a scope. An id has 255 at most by itself.
const SCOPE_BYTES: usize = 512;

/// Why no record can have that key. The database is not asked: a mode of it cuts what is too long.
pub(super) fn refusal(key: &RecordKey) -> Option<String> {
    let bytes = key.scope().len();
    (bytes > SCOPE_BYTES).then(|| {
        format!("a scope has at most {SCOPE_BYTES} bytes in this database, this one has {bytes}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_for_its_column_is_cut_between_characters() {
        let long = "🦀".repeat(300);
        let Value::Text(kept) = audited(&long) else { panic!("a text") };
        assert_eq!(kept.chars().count(), 255);
        assert!(matches!(audited("short"), Value::Text("short")));
    }

    #[test]
    fn a_scope_that_fits_no_key_is_refused() {
        let refused = |bytes: usize| refusal(&RecordKey::new("x".repeat(bytes), "a").unwrap());
        assert_eq!(refused(512), None);
        assert!(refused(513).is_some_and(|text| text.contains("512")));
    }
}
