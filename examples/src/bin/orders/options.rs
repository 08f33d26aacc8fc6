//! The command line.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, ValueEnum};

pub(crate) use mmate_examples::program::Failure;

/// Publishes order events, consumes them through overlapping subscriptions, applies each to a
/// database once, and checks that nothing was lost and nothing took effect twice.
///
/// Exit code: 0 if both are 0, 1 if not, 2 if it could not run.
#[derive(Debug, Parser)]
#[command(name = "orders", version)]
pub(crate) struct Options {
    /// The events as JSON lines: a file, or - for standard input [default: a file of 11,518 lines
    /// that comes with the example]
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,

    /// A RabbitMQ server, such as amqp://guest:guest@localhost:5672/%2f [default: a broker inside
    /// this process]
    #[arg(long, value_name = "URL")]
    pub(crate) broker: Option<String>,

    /// Where it is kept which messages were handled: sqlite:PATH, postgres://…, mysql://…, redis://…
    /// or memory. The shop's own tables are in the same database; with Redis or memory they are in a
    /// temporary file, and each run begins anew
    #[arg(long, default_value = "sqlite:orders.db")]
    pub(crate) store: StoreChoice,

    /// How duplicates are suppressed
    #[arg(long, value_enum, default_value_t = StrategyChoice::Transactional)]
    pub(crate) strategy: StrategyChoice,

    /// Lets the broker show one message in ten twice and lose one acknowledgement in ten
    #[arg(long)]
    pub(crate) chaos: bool,

    /// How many instances of the service compete for the messages
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) instances: u8,

    /// Forgets earlier runs: empties the shop's tables and the record of handled messages
    #[arg(long)]
    pub(crate) fresh: bool,

    /// Prints what the service uses on the broker, and does nothing else
    #[arg(long, value_enum, value_name = "FORMAT", num_args = 0..=1, default_missing_value = "text")]
    pub(crate) print_topology: Option<TopologyFormat>,

    /// Prints the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,

    /// How many seconds to wait for a message that does not come before it counts as lost
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    patience: u64,
}

impl Options {
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs(self.patience)
    }
}

/// How duplicates are suppressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StrategyChoice {
    /// Record and effect in one database transaction: exactly one effect, whatever crashes
    Transactional,
    /// The same, with one commit for what comes together
    Grouped,
    /// Claim, handle, complete in a store of its own: one effect unless the process dies in between
    Tracked,
    /// Not at all: shows what happens without
    None,
}

impl StrategyChoice {
    /// Whether the record is in the transaction of the effect.
    pub(crate) fn is_in_transaction(self) -> bool {
        matches!(self, Self::Transactional | Self::Grouped)
    }
}

/// How the topology is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TopologyFormat {
    /// To be read
    Text,
    /// A flowchart in the language of Mermaid
    Mermaid,
}

/// Where the records are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoreChoice {
    Memory,
    Sqlite(PathBuf),
    /// The URL of a PostgreSQL or a MariaDB.
    Server(String),
    /// The URL of a Redis.
    Redis(String),
}

impl FromStr for StoreChoice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "memory" => Ok(Self::Memory),
            Some(("sqlite", path)) if !path.is_empty() => Ok(Self::Sqlite(path.into())),
            Some(("postgres" | "postgresql" | "mysql" | "mariadb", _)) => {
                Ok(Self::Server(text.to_owned()))
            }
            Some(("redis" | "rediss", _)) => Ok(Self::Redis(text.to_owned())),
            _ => Err("a store is `memory`, `sqlite:PATH` such as sqlite:orders.db, redis://…, \
                      postgres://… or mysql://…"
                .to_owned()),
        }
    }
}
