//! What a soak consists of.

use std::time::Duration;

use mmate_core::checker::Promise;
use serde::Serialize;

use super::options::{Name, Options};
use crate::nemesis::Nemesis;

/// What a soak consists of: what was asked for, and for the rest its full size.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Plan {
    /// Which soak.
    pub name: Name,
    /// How many different messages.
    pub messages: u64,
    /// Which share of them is published twice.
    pub duplicates: f64,
    /// How many faults.
    pub faults: u32,
    /// From one fault to the next.
    pub every: Duration,
    /// How many consumers.
    pub processes: u16,
    /// How many keys the messages have.
    pub keys: u64,
    /// What chance begins with.
    pub seed: u64,
    /// The faults, in the order in which they come around.
    pub nemeses: Vec<Nemesis>,
}

/// One message of so many is poison.
pub(super) const POISON_EVERY: u64 = 1000;

impl Plan {
    /// By the options.
    ///
    /// # Errors
    /// A fault is asked for that is done to a server which the soak does not have.
    pub fn of(options: &Options) -> Result<Self, String> {
        let nemeses = match options.with.is_empty() {
            true => nemeses_of(options.name).to_vec(),
            false => options.with.clone(),
        };
        if let Some(nemesis) = nemeses.iter().find(|nemesis| !suits(options.name, **nemesis)) {
            let name = options.name.as_str();
            return Err(format!("the soak {name} has no server for the fault \"{nemesis}\""));
        }
        let (messages, duplicates, faults, every, keys) = match options.name {
            Name::Tx => (1_000_000, 0.2, 110, 8.0, 100_000),
            Name::Kill => (100_000, 0.0, 1_010, 0.4, 100_000),
            Name::Redis => (1_000_000, 0.2, 110, 8.0, 100_000),
            Name::Order => (200_000, 0.0, 205, 2.0, 1_000),
        };
        Ok(Self {
            name: options.name,
            messages: options.messages.unwrap_or(messages),
            duplicates: options.duplicates.unwrap_or(duplicates),
            faults: options.faults.unwrap_or(faults),
            every: Duration::from_secs_f64(options.every.unwrap_or(every)),
            processes: options.processes.unwrap_or(4),
            keys,
            seed: options.seed,
            nemeses,
        })
    }

    /// How many messages a second are published, so that they last as long as the faults.
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    pub(super) fn rate(&self) -> f64 {
        let time = self.every.as_secs_f64() * f64::from(self.faults.max(1));
        (self.messages as f64 / time).max(1.0)
    }

    /// The longest time between a message and its duplicate.
    pub(super) fn longest_delay(&self) -> Duration {
        let whole = self.every * self.faults.max(1);
        (whole / 4).min(Duration::from_secs(60))
    }

    pub(super) fn promise(&self) -> Promise {
        match self.name {
            Name::Redis => Promise::EffectOnceUnlessCrashed,
            Name::Tx | Name::Kill | Name::Order => Promise::EffectOnce,
        }
    }
}

/// The faults, in the order in which they come around.
fn nemeses_of(name: Name) -> &'static [Nemesis] {
    use Nemesis::{
        AcksDropped, ActiveKill, BlackHole, BrokerAlarm, BrokerFreeze, BrokerKill, BrokerTerm,
        ClockShift, ConsumerFreeze, ConsumerKill, ConsumerTerm, DatabaseKill, FrameCut, Latency,
        NetworkCut, OneWay, QueueDelete, RedisFreeze, RedisKill, SessionsEnd,
    };
    match name {
        Name::Tx => &[
            ConsumerKill,
            NetworkCut,
            DatabaseKill,
            ConsumerFreeze,
            SessionsEnd,
            BrokerKill,
            ConsumerTerm,
            BlackHole,
            BrokerAlarm,
            QueueDelete,
            ClockShift,
            BrokerFreeze,
        ],
        Name::Redis => &[
            ConsumerKill,
            NetworkCut,
            RedisKill,
            ConsumerFreeze,
            FrameCut,
            BrokerKill,
            QueueDelete,
            ConsumerTerm,
            AcksDropped,
            RedisFreeze,
            BlackHole,
            BrokerAlarm,
            ClockShift,
            Latency,
            BrokerFreeze,
            OneWay,
            BrokerTerm,
        ],
        Name::Kill => &[ConsumerKill],
        Name::Order => &[ActiveKill],
    }
}

/// Whether a soak has the server that a fault is done to.
fn suits(name: Name, nemesis: Nemesis) -> bool {
    use Nemesis::{
        ActiveKill, DatabaseFreeze, DatabaseKill, DatabaseTerm, RedisFreeze, RedisKill, SessionsEnd,
    };
    match nemesis {
        ActiveKill | DatabaseKill | DatabaseTerm | DatabaseFreeze | SessionsEnd => {
            name != Name::Redis
        }
        RedisKill | RedisFreeze => name == Name::Redis,
        _ => true,
    }
}
