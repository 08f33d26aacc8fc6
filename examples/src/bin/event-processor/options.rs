//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Shows events to all listeners, of which one processes each.
///
/// Without a command: a producer and its listeners in one process, to which a demonstration
/// publishes events, some of them twice. Exit code: 0 if each is stored once, 1 if not, 2 if it
/// could not run.
#[derive(Debug, Parser)]
#[command(name = "event-processor", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) demo: DemoOptions,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Takes events over HTTP (POST /publish), and shows them to the listeners
    Producer(ProducerOptions),
    /// Processes events, each together with all other listeners once
    Listener(ListenerOptions),
}

/// The demonstration.
#[derive(Debug, Args)]
pub(crate) struct DemoOptions {
    /// How many listeners there are
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) listeners: u8,

    /// How many different events are published; every fourth one comes twice
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub(crate) events: u32,

    /// Goes on afterwards until Ctrl-C, so that you can publish more
    #[arg(long)]
    pub(crate) stay: bool,

    /// The database of the events: sqlite:FILE, postgres://… or mysql://… [default: a temporary file]
    #[arg(long, value_name = "URL")]
    pub(crate) database: Option<String>,

    /// Where it is kept who has which event: memory, sqlite:FILE, or the URL of a Redis, a
    /// PostgreSQL or a MariaDB
    #[arg(long, value_name = "STORE", default_value = "memory")]
    pub(crate) store: String,

    #[command(flatten)]
    pub(crate) work: WorkOptions,

    /// Shows the events over this RabbitMQ, such as amqp://guest:guest@localhost:5672/%2f
    #[arg(long, value_name = "URL")]
    pub(crate) broker: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ProducerOptions {
    /// Where it listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,

    /// A SQLite file for the events that were published and how far each listener is
    #[arg(long, value_name = "FILE", default_value = "event-journal.db")]
    pub(crate) journal: PathBuf,

    /// How many events the journal keeps, the latest ones, for listeners that are away
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep: u32,

    /// Shows the events over this RabbitMQ and keeps no journal
    #[arg(long, value_name = "URL")]
    pub(crate) broker: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ListenerOptions {
    /// The name of this listener, its own for as long as it is to go on where it was
    #[arg(long, env = "INSTANCE_ID", value_name = "NAME", value_parser = instance_id)]
    pub(crate) instance_id: String,

    /// Where it listens for /api/events, /health and /metrics
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    pub(crate) listen: SocketAddr,

    /// The producer
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:8080/listen")]
    pub(crate) producer: String,

    /// The database of the events: sqlite:FILE, postgres://… or mysql://…
    #[arg(long, value_name = "URL", default_value = "sqlite:events.db")]
    pub(crate) database: String,

    /// Where it is kept who has which event: memory, sqlite:FILE, or the URL of a Redis, a
    /// PostgreSQL or a MariaDB. All listeners must have the same
    #[arg(long, value_name = "STORE", default_value = "sqlite:event-records.db")]
    pub(crate) store: String,

    #[command(flatten)]
    pub(crate) work: WorkOptions,

    /// Hears the events over this RabbitMQ, and not from the producer
    #[arg(long, value_name = "URL")]
    pub(crate) broker: Option<String>,
}

/// How a listener works.
#[derive(Debug, Clone, Args)]
pub(crate) struct WorkOptions {
    /// For how long an event is blocked if the listener that works on it dies, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(100..))]
    lease: u64,

    /// How long the work on an event takes, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 10)]
    work_takes: u64,

    /// How many events a listener works on at the same time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(crate) concurrency: u16,
}

impl WorkOptions {
    pub(crate) fn lease(&self) -> Duration {
        Duration::from_millis(self.lease)
    }

    pub(crate) fn work_takes(&self) -> Duration {
        Duration::from_millis(self.work_takes)
    }
}

/// It is a part of a queue's name and of a URL.
fn instance_id(text: &str) -> Result<String, String> {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match !text.is_empty() && text.len() <= 64 && text.chars().all(is_fit) {
        true => Ok(text.to_owned()),
        false => Err("a name has 1 to 64 letters, digits, dashes, dots or underscores".to_owned()),
    }
}
