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

/// Answers calls, each by the script, in one round trip.
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

    async fn ask(&self, wire: &Wire, calls: &[Call]) -> Vec<RedisResult<Value>> {
        let commands = |by, calls: &[&Call]| {
            calls.iter().map(|call| self.settings.command(call, by)).collect::<Vec<_>>()
        };
        let mut answers = wire.send(commands(By::Hash, &calls.iter().collect::<Vec<_>>())).await;
        // A server that was restarted, or is new, does not know the script.
        let unknown: Vec<usize> = answers
            .iter()
            .enumerate()
            .filter(|(_, answer)| answer.as_ref().is_err_and(is_no_script))
            .map(|(at, _)| at)
            .collect();
        if !unknown.is_empty() {
            let again: Vec<&Call> = unknown.iter().map(|at| &calls[*at]).collect();
            for (at, answer) in unknown.into_iter().zip(wire.send(commands(By::Text, &again)).await)
            {
                answers[at] = answer;
            }
        }
        answers
    }
}

pub(super) fn is_no_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

#[async_trait]
impl Together for Calls {
    async fn answer(&self, calls: &[Call]) -> Result<Vec<Verdict>, StoreError> {
        let wire = self.link.wire(self.limit).await?;
        let answers = timeout(self.limit, self.ask(&wire, calls)).await;
        let answers =
            answers.unwrap_or_else(|_| calls.iter().map(|_| Err(silence(self.limit))).collect());
        let verdicts = calls.iter().zip(answers).map(|(call, answer)| verdict(call, answer?));
        let (verdicts, errors): (Vec<_>, Vec<_>) = verdicts.partition(Result::is_ok);
        let Some(cause) = errors.into_iter().find_map(Result::err) else {
            return verdicts.into_iter().map(|verdict| verdict.map_err(failed(ASKING))).collect();
        };
        let error = failed(ASKING)(cause.clone());
        if is_of_the_connection(&cause) {
            self.link.give_up(&wire).await;
        }
        // Some were done: nobody is told that nothing was.
        if !verdicts.is_empty() && error.kind() == StoreErrorKind::Unavailable {
            return Err(StoreError::new(StoreErrorKind::Unknown, ASKING, cause));
        }
        Err(error)
    }
}

const ASKING: &str = "ask Redis";
