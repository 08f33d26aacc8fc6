//! Whoever does the harm.
//!
//! A nemesis does one kind of harm to a [`Stage`], heals it where it does not heal by itself, and says whom it met. They
//! are composed by their order in a plan.

mod broker;
mod consumers;
mod network;
mod stores;

use std::fmt;

use serde::Serialize;

use crate::soak::Stage;

/// One kind of harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Nemesis {
    /// A consumer gets SIGKILL.
    ConsumerKill,
    /// A consumer gets SIGSTOP, and SIGCONT 15 s later: after its lease and its heartbeat. Others are harmed meanwhile.
    ConsumerFreeze,
    /// A consumer gets SIGTERM, and drains.
    ConsumerTerm,
    /// The broker gets SIGKILL and is started again.
    BrokerKill,
    /// The broker gets SIGSTOP, and SIGCONT 5 s later.
    BrokerFreeze,
    /// The broker has too little memory for 3 s, by its own measure: it takes nothing from publishers.
    BrokerAlarm,
    /// All TCP connections of consumers to the broker end.
    NetworkCut,
    /// Nothing passes between consumers and broker for 12 s, and nobody is told.
    BlackHole,
    /// PostgreSQL gets SIGKILL, with all its processes, and is started again.
    DatabaseKill,
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
            Self::ConsumerFreeze => consumers::freeze(stage),
            Self::ConsumerTerm => consumers::terminate(stage),
            Self::BrokerKill => broker::kill(stage),
            Self::BrokerFreeze => broker::freeze(stage).await,
            Self::BrokerAlarm => broker::alarm(stage).await,
            Self::NetworkCut => network::cut(stage),
            Self::BlackHole => network::black_hole(stage).await,
            Self::DatabaseKill => stores::kill_database(stage),
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
            Self::ConsumerFreeze => "consumer SIGSTOP 15 s",
            Self::ConsumerTerm => "consumer SIGTERM",
            Self::BrokerKill => "broker SIGKILL",
            Self::BrokerFreeze => "broker SIGSTOP 5 s",
            Self::BrokerAlarm => "broker memory alarm 3 s",
            Self::NetworkCut => "all connections cut",
            Self::BlackHole => "black hole 12 s",
            Self::DatabaseKill => "PostgreSQL SIGKILL",
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
