//! Agreement with the protocol.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;

use super::Harness;
use super::harness::{RETENTION, WINDOW};
use super::stage::{LEASE, Stage, claimant, content};
use crate::protocol::{Claim, Command, Grant, Held, Record, Verdict, step};
use crate::store::Permit;

const KEYS: [&str; 3] = ["a", "b", "c"];
const ROUNDS: u64 = 40;
const COMMANDS: usize = 60;

/// S53: the same commands at the same time, given to the store and to the protocol's function, get
/// the same answers.
pub async fn random_commands_get_the_verdicts_of_the_protocol(harness: &impl Harness) {
    for seed in 0..ROUNDS {
        let stage = Stage::on(harness).await;
        let mut pair = Pair {
            harness,
            stage,
            records: HashMap::new(),
            permits: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
            log: Vec::new(),
        };
        for _ in 0..COMMANDS {
            pair.one().await;
        }
    }
}

struct Pair<'a, H> {
    harness: &'a H,
    stage: Stage,
    /// The records as the protocol has them.
    records: HashMap<&'static str, Record>,
    /// All that was granted, and some that was not.
    permits: Vec<(&'static str, Permit)>,
    random: fastrand::Rng,
    log: Vec<String>,
}

impl<H: Harness> Pair<'_, H> {
    async fn one(&mut self) {
        let key = KEYS[self.random.usize(..KEYS.len())];
        match self.random.u8(..16) {
            0..5 => self.claim(key).await,
            5..7 => self.held(|holder, _| Command::Heartbeat { holder, lease: LEASE }).await,
            7..10 => {
                let reply = self.random.bool().then(|| Bytes::from_static(b"reply"));
                self.held(|holder, _| Command::Complete { holder, reply: reply.clone() }).await;
            }
            10..12 => self.held(|holder, _| Command::Release { holder }).await,
            12 => self.purge().await,
            _ => {
                let millis = match self.random.u8(..4) {
                    0 => LEASE.as_millis() as u64,
                    1 => WINDOW.as_millis() as u64,
                    _ => self.random.u64(1..2 * LEASE.as_millis() as u64),
                };
                self.log.push(format!("wait {millis} ms"));
                self.harness.advance(Duration::from_millis(millis)).await;
            }
        }
    }

    async fn claim(&mut self, key: &'static str) {
        let mut request = self.stage.request(key);
        request.fingerprint = match self.random.u8(..8) {
            0 => None,
            1 => Some(content(1)),
            _ => Some(content(0)),
        };
        // Now and then the same attempt asks again.
        let again = self.permits.iter().rev().find(|(of, _)| *of == key);
        if let Some((_, permit)) = again.filter(|_| self.random.u8(..4) == 0) {
            request.owner = permit.holder().owner;
        }
        let command = Command::Claim {
            owner: request.owner,
            by: claimant().subscription.into(),
            fingerprint: request.fingerprint,
            lease: LEASE,
        };
        let Verdict::Claim(expected) = self.expect(key, command).await else {
            unreachable!("a claim is answered by a claim")
        };
        let got = self.stage.ask(&request).await;
        self.agree(&expected, &got);
        let grant = match got {
            Claim::Granted(grant) => grant,
            _ => Grant { fence: 1, attempt: 1, taken_over: false },
        };
        self.permits.push((key, Permit::new(&request, grant)));
    }

    async fn held(&mut self, command: impl Fn(crate::protocol::Holder, &Permit) -> Command) {
        if self.permits.is_empty() {
            return;
        }
        // Mostly the latest ones, which are still good for something.
        let back = self.random.usize(..4).min(self.random.usize(..self.permits.len()));
        let (key, permit) = self.permits[self.permits.len() - 1 - back].clone();
        let command = command(permit.holder(), &permit);
        let Verdict::Held(expected) = self.expect(key, command.clone()).await else {
            unreachable!("it is answered by whether it held")
        };
        let store = &self.stage.store;
        let got: Held = match command {
            Command::Heartbeat { lease, .. } => store.heartbeat(&permit, lease).await,
            Command::Complete { reply, .. } => store.complete(&permit, reply).await,
            _ => store.release(&permit).await,
        }
        .expect("the store answers");
        self.agree(&expected, &got);
    }

    async fn purge(&mut self) {
        for key in KEYS {
            self.expect(key, Command::Purge).await;
        }
        // How many there are to forget is not compared: a store may forget by itself before.
        self.stage.store.purge(1000).await.expect("the store answers");
    }

    /// What the protocol says.
    async fn expect(&mut self, key: &'static str, command: Command) -> Verdict {
        let now = self.harness.now().await;
        self.log.push(format!("{key}: {command:?} at {}", now.as_millis()));
        let (record, verdict) = step(self.records.remove(key), command, now, &RETENTION);
        if let Some(record) = record {
            self.records.insert(key, record);
        }
        verdict
    }

    #[track_caller]
    fn agree<T: PartialEq + std::fmt::Debug>(&self, expected: &T, got: &T) {
        assert!(
            expected == got,
            "the protocol says {expected:?}, the store {got:?}, after\n{}",
            self.log.join("\n")
        );
    }
}
