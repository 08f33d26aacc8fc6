//! Calls on their way to the server and back.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::time::timeout;

use super::failure::{failed, is_of_the_connection};
use super::link::{Link, Wire, silence};
use super::script::{By, Settings, verdict};
use crate::protocol::Verdict;
use crate::store::coalesce::{Call, Coalescer, Together};
use crate::store::{StoreError, StoreErrorKind};

/// Answers calls by the script, in one round trip.
#[derive(Clone)]
pub(super) struct Calls {
    pub(super) link: Arc<Link>,
    pub(super) settings: Settings,
    /// How long an answer may take.
    pub(super) limit: Duration,
}

/// How many calls share a round trip to a server at most, and how many round trips are under way.
/// Measured: calls by themselves, on the same connection, come to less than half as many a second.
const TOGETHER: usize = 64;
const ROUND_TRIPS: usize = 2;
/// In a cluster each call goes to the node of its key by itself.
const CALLS_IN_CLUSTER: usize = 256;

impl Calls {
    /// Where calls gather.
    pub(super) fn desk(self) -> Coalescer<Self> {
        if self.link.is_cluster() {
            Coalescer::new(self, 1, CALLS_IN_CLUSTER)
        } else {
            Coalescer::new(self, TOGETHER, ROUND_TRIPS)
        }
    }

    async fn failure(&self, wire: &Wire, cause: RedisError) -> StoreError {
        if is_of_the_connection(&cause) {
            self.link.give_up(wire).await;
        }
        failed(ASKING)(cause)
    }

    /// Each has an answer, or an error in its place.
    async fn ask(&self, wire: &Wire, calls: &[&Call]) -> RedisResult<Vec<Value>> {
        let command = |by| self.settings.command(calls, by);
        let answer = match wire.run(&command(By::Hash)).await {
            // A server that was restarted, or is new, does not know the script.
            Err(error) if is_no_script(&error) => wire.run(&command(By::Text)).await?,
            answer => answer?,
        };
        match answer {
            Value::Array(answers) if answers.len() == calls.len() => Ok(answers),
            other => {
                let kind = ErrorKind::UnexpectedReturnType;
                Err((kind, "the script's answer is unknown", format!("{other:?}")).into())
            }
        }
    }
}

/// Where each call stands in the script: claims first.
fn claims_first(calls: &[Call]) -> Vec<usize> {
    let is_claim = |at: &usize| matches!(calls[*at], Call::Claim(_));
    let (claims, others): (Vec<_>, Vec<_>) = (0..calls.len()).partition(is_claim);
    claims.into_iter().chain(others).collect()
}

pub(super) fn is_no_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

#[async_trait]
impl Together for Calls {
    async fn answer(&self, calls: &[Call]) -> Result<Vec<Verdict>, StoreError> {
        let wire = self.link.wire(self.limit).await?;
        let order = claims_first(calls);
        let in_order: Vec<&Call> = order.iter().map(|at| &calls[*at]).collect();
        let answered = timeout(self.limit, self.ask(&wire, &in_order)).await;
        let answers = match answered.unwrap_or_else(|_| Err(silence(self.limit))) {
            Ok(answers) => answers,
            Err(cause) => return Err(self.failure(&wire, cause).await),
        };
        let mut verdicts: Vec<_> = order.into_iter().zip(answers).collect();
        verdicts.sort_unstable_by_key(|(at, _)| *at);
        let verdicts = verdicts.into_iter().map(|(at, answer)| verdict(&calls[at], answer));
        let (verdicts, errors): (Vec<_>, Vec<_>) = verdicts.partition(Result::is_ok);
        let Some(cause) = errors.into_iter().find_map(Result::err) else {
            return verdicts.into_iter().map(|verdict| verdict.map_err(failed(ASKING))).collect();
        };
        let error = self.failure(&wire, cause.clone()).await;
        // Some were done: nobody is told that nothing was.
        if !verdicts.is_empty() && error.kind() == StoreErrorKind::Unavailable {
            return Err(StoreError::new(StoreErrorKind::Unknown, ASKING, cause));
        }
        Err(error)
    }
}

const ASKING: &str = "ask Redis";
