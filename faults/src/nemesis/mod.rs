//! Whoever does the harm.
//!
//! A nemesis does one kind of harm to a [`Stage`], heals it where it does not heal by itself, and says whom it met. They
//! are composed by their order in a plan.

mod broker;
mod consumers;
mod network;
mod stores;

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::soak::Stage;

/// One kind of harm.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Nemesis {
    /// A consumer gets SIGKILL.
    ConsumerKill,
    /// The consumer that had the last effect gets SIGKILL: of a single active consumer, the active one.
    ActiveKill,
    /// A consumer gets SIGSTOP, and SIGCONT 15 s later: after its lease and its heartbeat. Others are harmed meanwhile.
    ConsumerFreeze,
    /// A consumer gets SIGTERM, and drains.
    ConsumerTerm,
    /// The clock of a consumer is an hour ahead for 5 s, then an hour behind for as long, and right again. Needs
    /// libfaketime.
    ClockShift,
    /// The broker gets SIGKILL and is started again.
    BrokerKill,
    /// The broker gets SIGTERM, ends in good order, and is started again.
    BrokerTerm,
    /// The broker gets SIGSTOP, and SIGCONT 5 s later.
    BrokerFreeze,
    /// The broker has too little memory for 3 s, by its own measure: it takes nothing from publishers.
    BrokerAlarm,
    /// The queue is deleted under its consumers, at a moment when nothing is in it or on its way to it: what is in a
    /// queue that is deleted is gone, whoever consumes.
    QueueDelete,
    /// All TCP connections of consumers to the broker end.
    NetworkCut,
    /// A delivery is cut in its middle, and its connection ends.
    FrameCut,
    /// Acknowledgements of consumers vanish for 1 s; then all their connections end.
    AcksDropped,
    /// Deliveries arrive, and nothing of what consumers say does, for 8 s.
    OneWay,
    /// Everything between consumers and broker takes 0.3 s longer in each direction, for 5 s.
    Latency,
    /// Nothing passes between consumers and broker for 12 s, and nobody is told.
    BlackHole,
    /// PostgreSQL gets SIGKILL, with all its processes, and is started again.
    DatabaseKill,
    /// PostgreSQL gets SIGINT, ends all sessions, and is started again.
    DatabaseTerm,
    /// PostgreSQL gets SIGSTOP, with all its processes, and SIGCONT 5 s later.
    DatabaseFreeze,
    /// An administrator ends all sessions of consumers in PostgreSQL.
    SessionsEnd,
    /// Redis gets SIGKILL and is started again, with what its append-only file has.
    RedisKill,
    /// Redis gets SIGSTOP, and SIGCONT 5 s later.
    RedisFreeze,
}

/// What a strike did.
#[derive(Debug)]
pub(crate) struct Struck {
    /// Whom it met, in words.
    pub(crate) whom: String,
    /// The consumers that the checker excuses second effects of.
    pub(crate) harmed: Vec<String>,
}

impl Struck {
    fn nobody(whom: impl Into<String>) -> Self {
        Self { whom: whom.into(), harmed: Vec::new() }
    }
}

impl Nemesis {
    /// Strikes, and returns when the harm is done, and healed if it is not to be lasting.
    pub(crate) async fn strike(self, stage: &Stage) -> Struck {
        match self {
            Self::ConsumerKill => consumers::kill(stage),
            Self::ActiveKill => consumers::kill_active(stage).await,
            Self::ConsumerFreeze => consumers::freeze(stage),
            Self::ConsumerTerm => consumers::terminate(stage),
            Self::ClockShift => consumers::shift_clock(stage).await,
            Self::BrokerKill => broker::kill(stage),
            Self::BrokerTerm => broker::terminate(stage),
            Self::BrokerFreeze => broker::freeze(stage).await,
            Self::BrokerAlarm => broker::alarm(stage).await,
            Self::QueueDelete => broker::delete_queue(stage).await,
            Self::NetworkCut => network::cut(stage),
            Self::FrameCut => network::cut_a_frame(stage).await,
            Self::AcksDropped => network::drop_acks(stage).await,
            Self::OneWay => network::one_way(stage).await,
            Self::Latency => network::latency(stage).await,
            Self::BlackHole => network::black_hole(stage).await,
            Self::DatabaseKill => stores::kill_database(stage),
            Self::DatabaseTerm => stores::terminate_database(stage),
            Self::DatabaseFreeze => stores::freeze_database(stage).await,
            Self::SessionsEnd => stores::end_sessions(stage).await,
            Self::RedisKill => stores::kill_redis(stage),
            Self::RedisFreeze => stores::freeze_redis(stage).await,
        }
    }

    /// For tables and plots.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConsumerKill => "consumer SIGKILL",
            Self::ActiveKill => "active consumer SIGKILL",
            Self::ConsumerFreeze => "consumer SIGSTOP 15 s",
            Self::ConsumerTerm => "consumer SIGTERM",
            Self::ClockShift => "consumer's clock ±1 h",
            Self::BrokerKill => "broker SIGKILL",
            Self::BrokerTerm => "broker SIGTERM",
            Self::BrokerFreeze => "broker SIGSTOP 5 s",
            Self::BrokerAlarm => "broker memory alarm 3 s",
            Self::QueueDelete => "queue deleted",
            Self::NetworkCut => "all connections cut",
            Self::FrameCut => "cut inside a delivery",
            Self::AcksDropped => "acknowledgements dropped 1 s",
            Self::OneWay => "only deliveries arrive 8 s",
            Self::Latency => "0.3 s latency for 5 s",
            Self::BlackHole => "black hole 12 s",
            Self::DatabaseKill => "PostgreSQL SIGKILL",
            Self::DatabaseTerm => "PostgreSQL SIGINT",
            Self::DatabaseFreeze => "PostgreSQL SIGSTOP 5 s",
            Self::SessionsEnd => "PostgreSQL sessions ended",
            Self::RedisKill => "Redis SIGKILL",
            Self::RedisFreeze => "Redis SIGSTOP 5 s",
        }
    }
}

impl fmt::Display for Nemesis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
