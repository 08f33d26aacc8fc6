//! Many calls in one transaction, and that in one round trip.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::mysql::MySqlRow;
use sqlx::{FromRow, MySqlConnection, Row as _};
use tokio::time::sleep;

use super::failure::{failed, is_deadlock, is_lock_wait_timeout, unreached};
use super::records::{Records, refusal};
use super::session::{ANSWERS_OF_BEGIN, Answer, BEGIN, Session, ask};
use crate::protocol::{Claim, Held, Verdict};
use crate::store::claim_call::ClaimCall;
use crate::store::coalesce::{Call, Together};
use crate::store::sql::{Aim, Row};
use crate::store::{ClaimRequest, Claimant, RecordKey, StoreError, StoreErrorKind};

#[async_trait]
impl Together for Records {
    async fn answer(&self, calls: &[Call]) -> Result<Vec<Verdict>, StoreError> {
        if let Some(text) = calls.iter().find_map(|call| refusal(call.key())) {
            return Err(StoreError::new(StoreErrorKind::Permanent, ASKING, text));
        }
        // Everybody locks in the order of the keys, and so nobody waits crosswise.
        let mut order: Vec<usize> = (0..calls.len()).collect();
        order.sort_unstable_by_key(|at| key_bytes(calls[*at].key()));
        let mut verdicts = vec![Verdict::Held(Held::Refused); calls.len()];
        for part in parts(calls, &order) {
            self.answer_part(calls, part, &mut verdicts).await?;
        }
        Ok(verdicts)
    }
}

const ASKING: &str = "ask for records";

/// So many bytes of replies are sent at once; one that has more is sent alone.
const REPLIES_AT_ONCE: usize = 1024 * 1024;

/// Which calls go into one round trip each.
fn parts<'o>(calls: &[Call], order: &'o [usize]) -> Vec<&'o [usize]> {
    let mut parts = Vec::new();
    let (mut began, mut bytes) = (0, 0);
    for (place, at) in order.iter().enumerate() {
        let more = match &calls[*at] {
            Call::Complete { reply: Some(reply), .. } => reply.len(),
            _ => 0,
        };
        if began < place && bytes + more > REPLIES_AT_ONCE {
            parts.push(&order[began..place]);
            (began, bytes) = (place, 0);
        }
        bytes += more;
    }
    parts.push(&order[began..]);
    parts
}

impl Records {
    async fn answer_part(
        &self,
        calls: &[Call],
        order: &[usize],
        verdicts: &mut [Verdict],
    ) -> Result<(), StoreError> {
        let mut claims = Vec::new();
        let mut others = Vec::new();
        let mut statements = BEGIN.to_owned();
        for at in order {
            match &calls[*at] {
                Call::Claim(claim) => claims.push((*at, &**claim)),
                _ => others.push(*at),
            }
        }
        if !claims.is_empty() {
            let all: Vec<_> = claims
                .iter()
                .map(|(_, claim)| (*claim, self.term(Aim::Work, claim.lease)))
                .collect();
            statements.push_str("; ");
            self.write_claims(&mut statements, &all);
        }
        for at in &others {
            statements.push_str("; ");
            match &calls[*at] {
                Call::Claim(_) => unreachable!("claims are made together"),
                Call::Heartbeat { permit, lease } => {
                    self.write_heartbeat(&mut statements, permit, *lease);
                }
                Call::Complete { permit, reply } => {
                    self.write_complete(&mut statements, permit, reply.as_deref());
                }
                Call::Release { permit } => self.write_release(&mut statements, permit),
            }
        }
        statements.push_str("; COMMIT");

        let answers = self.transact(ASKING, &statements).await?;
        let mut answers = answers.into_iter().skip(ANSWERS_OF_BEGIN);
        if !claims.is_empty() {
            let seen = answers.nth(1).ok_or_else(no_answer)?.rows;
            let mut seen = by_key(&seen).map_err(failed(ASKING))?;
            for (at, claim) in claims {
                let row = seen.remove(&key_bytes(&claim.key));
                verdicts[at] = Verdict::Claim(self.verdict(&request_of(claim), row)?);
            }
        }
        for at in others {
            let matched = answers.next().ok_or_else(no_answer)?.matched;
            verdicts[at] = Verdict::Held(if matched > 0 { Held::Yes } else { Held::Refused });
        }
        Ok(())
    }

    /// What became of a claim, by its row as it is right after.
    pub(super) fn verdict(
        &self,
        request: &ClaimRequest<'_>,
        row: Option<Row>,
    ) -> Result<Claim, StoreError> {
        let row = row.ok_or_else(no_answer)?;
        let is_own = row.owner == request.owner.as_bytes();
        Ok(match Row::answer(Some(row), request, &self.retention) {
            // It was refused, and the record's time ended between the claim and the look.
            Claim::Granted(_) if !is_own => Claim::Busy { remaining: Duration::ZERO },
            other => other,
        })
    }

    /// Makes a round trip that is a transaction. One that is in another's way is made again.
    pub(super) async fn transact(
        &self,
        attempted: &'static str,
        statements: &str,
    ) -> Result<Vec<Answer>, StoreError> {
        let mut session = Session::of(&self.pool).await.map_err(unreached(attempted))?;
        if statements.len() > LARGE {
            may_send(&mut session, attempted, statements.len()).await?;
        }
        let mut tries = 0;
        let error = loop {
            tries += 1;
            let error = match ask(&mut session, statements.to_owned()).await {
                Ok(answers) => {
                    session.settled();
                    return Ok(answers);
                }
                Err(error) => error,
            };
            // Of a statement that waited in vain, only itself was undone.
            if error.as_database_error().is_none() || rollback(&mut session).await.is_err() {
                break error;
            }
            let most = if is_deadlock(&error) {
                DEADLOCKS
            } else if is_lock_wait_timeout(&error) {
                LOCK_WAITS
            } else {
                0
            };
            if tries > most {
                session.settled();
                break error;
            }
            sleep(Duration::from_millis(fastrand::u64(1..=10 * tries))).await;
        };
        Err(failed(attempted)(error))
    }
}

/// How often a transaction is made again that the database gave up.
pub(super) const DEADLOCKS: u64 = 10;
const LOCK_WAITS: u64 = 1;

/// Every server takes what is smaller: a part of calls without long replies.
const LARGE: usize = 1024 * 1024;

/// Whether the server takes so many bytes. Those that are too many it answers by closing the
/// connection, as if there were something wrong with it.
async fn may_send(
    session: &mut Session,
    attempted: &'static str,
    bytes: usize,
) -> Result<(), StoreError> {
    let limit: i64 = sqlx::query_scalar("SELECT CAST(@@max_allowed_packet AS SIGNED)")
        .fetch_one(&mut **session)
        .await
        .map_err(failed(attempted))?;
    if bytes < usize::try_from(limit).unwrap_or(usize::MAX) {
        return Ok(());
    }
    let text = format!(
        "a reply is too long: with it {bytes} bytes are to be sent, two for each of its own, and \
         the server's max_allowed_packet is {limit}"
    );
    Err(StoreError::new(StoreErrorKind::Permanent, attempted, text))
}

async fn rollback(connection: &mut MySqlConnection) -> sqlx::Result<()> {
    ask(connection, "ROLLBACK".to_owned()).await.map(drop)
}

/// What the protocol looks at in a claim.
fn request_of(claim: &ClaimCall) -> ClaimRequest<'_> {
    let claimant = Claimant {
        service: &claim.service,
        subscription: &claim.subscription,
        instance: &claim.instance,
    };
    let mut request = ClaimRequest::new(claim.key.clone(), claimant, claim.lease);
    request.owner = claim.owner;
    request.fingerprint = claim.fingerprint;
    request
}

type KeyBytes<'k> = (&'k [u8], &'k [u8]);

fn key_bytes(key: &RecordKey) -> KeyBytes<'_> {
    (key.scope().as_bytes(), key.id().as_bytes())
}

fn by_key(rows: &[MySqlRow]) -> sqlx::Result<HashMap<KeyBytes<'_>, Row>> {
    let with_key = |row| {
        let key = (MySqlRow::try_get(row, "scope")?, MySqlRow::try_get(row, "message_id")?);
        Ok((key, Row::from_row(row)?))
    };
    rows.iter().map(with_key).collect()
}

pub(super) fn no_answer() -> StoreError {
    let text = "the database answered fewer statements than were asked";
    StoreError::new(StoreErrorKind::Unknown, ASKING, text)
}
