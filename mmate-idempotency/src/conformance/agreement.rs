//! Agreement with the protocol.

use futures_util::future::join_all;
use mmate_core::TraceParent;

use super::Harness;
use super::harness::is_long;
use super::plan::{Act, Ask, KEYS, Plan, What};
use super::sequel::Sequel;
use super::stage::{LEASE, Stage, claimant, content};
use crate::protocol::{Claim, Command, Grant, Owner, Verdict};
use crate::store::{Permit, StoreError};

/// How many plans are carried out; three times as many with `MMATE_TEST_LONG=1`.
const ROUNDS: u64 = 40;
/// How many acts a plan has.
const ACTS: usize = 60;

/// S53: the same commands at the same time, given to the store and to the protocol's function, get
/// the same answers. Commands that are given at once get the answers of one order or another.
///
/// If not, it fails with the seed, and with the shortest plan it has found that shows it.
pub async fn random_commands_get_the_verdicts_of_the_protocol(harness: &impl Harness) {
    for seed in 0..ROUNDS * if is_long() { 3 } else { 1 } {
        let plan = Plan::random(seed, ACTS);
        if let Err(first) = carry_out(harness, &plan).await {
            let (plan, difference) = shortest(harness, plan, first).await;
            panic!("{difference}\nseed {seed}, shortened:\n{plan}");
        }
    }
}

/// Leaves out of a plan what is not needed for the store and the protocol to differ.
async fn shortest(harness: &impl Harness, plan: Plan, found: Difference) -> (Plan, Difference) {
    let (mut plan, mut found) = (plan.until(found.at), found);
    // From the end, as what comes last depends on what comes first.
    let mut left = plan.parts();
    while left > 0 {
        left -= 1;
        let shorter = plan.without(left);
        if let Err(difference) = carry_out(harness, &shorter).await {
            (plan, found) = (shorter.until(difference.at), difference);
            left = left.min(plan.parts());
        }
    }
    (plan, found)
}

/// How a store and the protocol differ.
struct Difference {
    /// In which act.
    at: usize,
    text: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

async fn carry_out(harness: &impl Harness, plan: &Plan) -> Result<(), Difference> {
    let stage = Stage::on(harness).await;
    let mut sequels: Vec<Sequel> = KEYS.iter().map(|_| Sequel::default()).collect();
    // All that was granted, and some that was not.
    let mut permits: Vec<Vec<Permit>> = vec![Vec::new(); KEYS.len()];
    for (at, act) in plan.acts.iter().enumerate() {
        let asks = match act {
            Act::Wait(time) => {
                harness.advance(*time).await;
                continue;
            }
            Act::Purge => {
                let now = harness.now().await;
                for sequel in &mut sequels {
                    sequel.purge(now);
                }
                // How many there are to forget is not compared: a store may forget by itself.
                stage.store.purge(1000).await.expect("the store answers");
                continue;
            }
            Act::AtOnce(asks) => asks,
        };
        let now = harness.now().await;
        let calls: Vec<_> =
            asks.iter().filter_map(|ask| Prepared::new(&stage, ask, &permits[ask.key])).collect();
        let answers = join_all(calls.iter().map(|call| call.put(&stage))).await;
        for (number, sequel) in sequels.iter_mut().enumerate() {
            let of_key = || calls.iter().zip(&answers).filter(|(call, _)| call.key == number);
            let pairs: Vec<_> = of_key()
                .map(|(call, answer)| {
                    (call.command.clone(), answer.as_ref().expect("the store answers").clone())
                })
                .collect();
            if let Err(expected) = sequel.follow(&pairs, now) {
                let (key, got): (_, Vec<_>) =
                    (KEYS[number], pairs.iter().map(|(_, got)| got).collect());
                let text = format!(
                    "of {key:?}, the protocol says {expected:?}, the store {got:?}, in act {at}"
                );
                return Err(Difference { at, text });
            }
        }
        for (call, answer) in calls.into_iter().zip(answers) {
            if let Ok(Verdict::Claim(claim)) = answer {
                permits[call.key].push(call.permit(&claim));
            }
        }
    }
    Ok(())
}

/// A call, ready to be put to the store, and the same as a command.
struct Prepared {
    key: usize,
    command: Command,
    /// The permit by which it is asked; of a claim, one that was not granted.
    permit: Permit,
    request: crate::store::ClaimRequest<'static>,
}

impl Prepared {
    /// `None` if it is asked by a permit and there is none.
    fn new(stage: &Stage, ask: &Ask, permits: &[Permit]) -> Option<Self> {
        let by = |back: usize| permits.iter().rev().nth(back.min(permits.len().saturating_sub(1)));
        let mut request = stage.request(KEYS[ask.key]);
        let (command, permit) = match &ask.what {
            What::Claim { content: byte, again } => {
                request.fingerprint = byte.map(content);
                if let Some(permit) = permits.last().filter(|_| *again) {
                    request.owner = permit.holder().owner;
                }
                request.trace = trace_of(request.owner);
                let command = Command::Claim {
                    owner: request.owner,
                    by: claimant().subscription.into(),
                    fingerprint: request.fingerprint,
                    lease: LEASE,
                    trace: request.trace,
                };
                let grant = Grant { fence: 1, attempt: 1, taken_over: false };
                (command, Permit::new(&request, grant))
            }
            What::Heartbeat { back } => {
                let permit = by(*back)?;
                (Command::Heartbeat { holder: permit.holder(), lease: LEASE }, permit.clone())
            }
            What::Complete { back, reply } => {
                let permit = by(*back)?;
                let command = Command::Complete { holder: permit.holder(), reply: reply.clone() };
                (command, permit.clone())
            }
            What::Release { back } => {
                let permit = by(*back)?;
                (Command::Release { holder: permit.holder() }, permit.clone())
            }
        };
        Some(Self { key: ask.key, command, permit, request })
    }

    async fn put(&self, stage: &Stage) -> Result<Verdict, StoreError> {
        let (store, permit) = (&stage.store, &self.permit);
        match &self.command {
            Command::Claim { .. } => store.claim(&self.request).await.map(Verdict::Claim),
            Command::Heartbeat { lease, .. } => {
                store.heartbeat(permit, *lease).await.map(Verdict::Held)
            }
            Command::Complete { reply, .. } => {
                store.complete(permit, reply.clone()).await.map(Verdict::Held)
            }
            Command::Release { .. } => store.release(permit).await.map(Verdict::Held),
            Command::Purge => unreachable!("a purge is an act of its own"),
        }
    }

    /// What was granted; or, if nothing was, what a liar would say.
    fn permit(&self, claim: &Claim) -> Permit {
        match claim {
            Claim::Granted(grant) => Permit::new(&self.request, *grant),
            _ => self.permit.clone(),
        }
    }
}

/// Half of the owners are traced, each at a place of its own.
fn trace_of(owner: Owner) -> Option<TraceParent> {
    let bytes = owner.as_bytes();
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let text = format!("00-{digits}-{}-01", &digits[..16]);
    bytes[15].is_multiple_of(2).then(|| text.parse().ok()).flatten()
}
