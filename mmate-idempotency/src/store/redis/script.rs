//! The script that answers calls, and what it says.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{Cmd, FromRedisValue, RedisResult, Script, Value};

use super::key::Prefix;
use crate::protocol::{Claim, Grant, Held, Retention, Seen, Time, Verdict};
use crate::store::claim_call::ClaimCall;
use crate::store::coalesce::Call;
use crate::store::{ManualClock, Permit};

const CODE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/lua/record.lua"));

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(CODE));

/// How the script is named to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// The server knows it.
    Hash,
    /// The server learns it.
    Text,
}

/// What all calls of a store have in common.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    pub(super) prefix: Prefix,
    pub(super) retention: Retention,
    pub(super) clock: Option<ManualClock>,
}

impl Settings {
    /// Claims come first, as the script wants them.
    pub(super) fn command(&self, calls: &[&Call], by: By) -> Cmd {
        let mut cmd = match by {
            By::Hash => redis::cmd("EVALSHA").arg(SCRIPT.get_hash()).take(),
            By::Text => redis::cmd("EVAL").arg(CODE).take(),
        };
        cmd.arg(calls.len());
        for call in calls {
            cmd.arg(self.prefix.key(call.key()));
        }
        match self.clock.as_ref().map(|clock| clock.now().as_millis()) {
            Some(now) => cmd.arg(now),
            None => cmd.arg(""),
        };
        for call in calls {
            self.arguments(&mut cmd, call);
        }
        cmd
    }

    fn arguments(&self, cmd: &mut Cmd, call: &Call) {
        let of_failures = millis(self.retention.of_failures());
        match call {
            Call::Claim(claim) => of_claimant(of_claim(cmd, claim).arg(of_failures), claim),
            Call::Heartbeat { permit, lease } => {
                of_holder(cmd, "heartbeat", permit).arg(millis(*lease)).arg(of_failures)
            }
            Call::Complete { permit, reply } => {
                let cmd = of_holder(cmd, "complete", permit);
                match self.retention.of_done().map(millis) {
                    Some(window) => cmd.arg(window),
                    None => cmd.arg(""),
                };
                cmd.arg(u8::from(reply.is_some())).arg(reply.as_deref().unwrap_or_default())
            }
            Call::Release { permit } => of_holder(cmd, "release", permit).arg(of_failures),
        };
    }
}

fn of_claim<'c>(cmd: &'c mut Cmd, claim: &ClaimCall) -> &'c mut Cmd {
    let content = claim.fingerprint.as_ref().map_or(&[][..], |digest| digest.as_bytes());
    cmd.arg("claim").arg(&claim.owner.as_bytes()[..]).arg(content).arg(millis(claim.lease))
}

fn of_claimant<'c>(cmd: &'c mut Cmd, claim: &ClaimCall) -> &'c mut Cmd {
    cmd.arg(&claim.subscription)
        .arg(&claim.service)
        .arg(&claim.instance)
        .arg(claim.correlation_id.as_deref().unwrap_or_default())
        .arg(&claim.message_type);
    match claim.trace {
        Some(trace) => cmd.arg(trace.to_string()),
        None => cmd.arg(""),
    }
}

fn of_holder<'c>(cmd: &'c mut Cmd, command: &str, permit: &Permit) -> &'c mut Cmd {
    let holder = permit.holder();
    cmd.arg(command).arg(&holder.owner.as_bytes()[..]).arg(holder.fence)
}

/// Rounded up as the protocol does, and small enough that the script's sums are exact and no
/// expiry is refused: 35,000 years.
fn millis(duration: Duration) -> u64 {
    (Time::default() + duration).as_millis().min(1 << 50)
}

/// What the script's answer to a call means.
pub(super) fn verdict(call: &Call, answer: Value) -> RedisResult<Verdict> {
    let answer = answer.extract_error()?;
    match call {
        Call::Claim(_) => claim(answer).map(Verdict::Claim),
        Call::Heartbeat { .. } | Call::Complete { .. } | Call::Release { .. } => {
            let held = if bool::from_redis_value(answer)? { Held::Yes } else { Held::Refused };
            Ok(Verdict::Held(held))
        }
    }
}

fn claim(answer: Value) -> RedisResult<Claim> {
    let parts = Vec::<Value>::from_redis_value(answer)?;
    let mut parts = parts.into_iter();
    let mut next = || parts.next().unwrap_or(Value::Nil);
    let word = String::from_redis_value(next())?;
    Ok(match word.as_str() {
        "granted" => Claim::Granted(Grant {
            fence: u64::from_redis_value(next())?,
            attempt: u32::from_redis_value(next())?,
            taken_over: bool::from_redis_value(next())?,
        }),
        "duplicate" => Claim::Duplicate(Seen {
            since: Time::from_millis(u64::from_redis_value(next())?),
            by: String::from_redis_value(next())?.into(),
            reply: Option::<Vec<u8>>::from_redis_value(next())?.map(Into::into),
            trace: Option::<String>::from_redis_value(next())?.and_then(|text| text.parse().ok()),
        }),
        "busy" => Claim::Busy { remaining: Duration::from_millis(u64::from_redis_value(next())?) },
        "conflict" => Claim::Conflict,
        _ => {
            let kind = redis::ErrorKind::UnexpectedReturnType;
            return Err((kind, "the script's answer is unknown", word).into());
        }
    })
}
