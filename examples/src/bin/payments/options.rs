//! The command line.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Charges each order once, whatever is repeated, fails, comes too late or is killed.
///
/// Without a command: a provider, a service and a shop in one process. Exit code: 0 if each order was charged once and
/// has one receipt, 1 if not, 2 if it could not run.
#[derive(Debug, Parser)]
#[command(name = "payments", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) demo: DemoOptions,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A payment provider over HTTP that honours Idempotency-Key, and has bad manners otherwise
    Provider(ProviderOptions),
    /// Charges orders at the provider, and writes receipts; as many as you like
    Service(ServiceOptions),
    /// Places orders: every third is told of twice, and every fifth twice under two ids
    Publish(PublishOptions),
    /// Compares what the provider has charged with payments and receipts
    Check(CheckOptions),
}

#[derive(Debug, Args)]
pub(crate) struct DemoOptions {
    /// How many orders are placed
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) orders: u32,

    /// The database of payments, receipts and records: sqlite:FILE, postgres://… or mysql://… [default: a temporary file]
    #[arg(long, value_name = "URL")]
    pub(crate) database: Option<String>,

    /// Where the locks are: memory, sqlite:FILE, or the URL of a Redis, a PostgreSQL or a MariaDB
    #[arg(long, value_name = "STORE", default_value = "memory")]
    pub(crate) locks: String,

    /// A RabbitMQ, such as amqp://guest:guest@localhost:5672/%2f [default: a broker inside this process]
    #[arg(long, value_name = "URL")]
    pub(crate) broker: Option<String>,

    #[command(flatten)]
    pub(crate) manners: Manners,

    #[command(flatten)]
    pub(crate) work: WorkOptions,
}

#[derive(Debug, Args)]
pub(crate) struct ProviderOptions {
    /// Where it listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8090")]
    pub(crate) listen: SocketAddr,

    #[command(flatten)]
    pub(crate) manners: Manners,
}

/// How the provider behaves.
#[derive(Debug, Clone, Args)]
pub(crate) struct Manners {
    /// How long a charge takes at most, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 100)]
    takes: u64,

    /// Which share of requests it fails to handle: from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = share)]
    pub(crate) fails: f64,

    /// Which share of charges it answers after the service gave up: from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, value_parser = share)]
    pub(crate) late: f64,
}

impl Manners {
    pub(crate) fn takes(&self) -> Duration {
        Duration::from_millis(self.takes)
    }
}

#[derive(Debug, Args)]
pub(crate) struct ServiceOptions {
    /// The RabbitMQ
    #[arg(long, value_name = "URL", default_value = "amqp://guest:guest@localhost:5672/%2f")]
    pub(crate) broker: String,

    /// The database of payments, receipts and records: sqlite:FILE, postgres://… or mysql://…
    #[arg(long, value_name = "URL", default_value = "sqlite:payments.db")]
    pub(crate) database: String,

    /// Where the locks are: sqlite:FILE, or the URL of a Redis, a PostgreSQL or a MariaDB. Not the file of the database
    #[arg(long, value_name = "STORE", default_value = "sqlite:payment-locks.db")]
    pub(crate) locks: String,

    /// The provider
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8090")]
    pub(crate) provider: String,

    #[command(flatten)]
    pub(crate) work: WorkOptions,
}

/// How the service works.
#[derive(Debug, Clone, Args)]
pub(crate) struct WorkOptions {
    /// How long it waits for the provider, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(10..))]
    patience: u64,

    /// For how long an order is blocked if the process that works on it dies, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    lease: u64,

    /// How many orders a service works on at the same time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub(crate) concurrency: u16,
}

impl WorkOptions {
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_millis(self.patience)
    }

    pub(crate) fn lease(&self) -> Duration {
        Duration::from_millis(self.lease)
    }
}

#[derive(Debug, Args)]
pub(crate) struct PublishOptions {
    /// The RabbitMQ
    #[arg(long, value_name = "URL", default_value = "amqp://guest:guest@localhost:5672/%2f")]
    pub(crate) broker: String,

    /// How many orders are placed, from order-1 on; told of again if that was done before
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) orders: u32,
}

#[derive(Debug, Args)]
pub(crate) struct CheckOptions {
    /// The database of payments and receipts
    #[arg(long, value_name = "URL", default_value = "sqlite:payments.db")]
    pub(crate) database: String,

    /// The provider
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8090")]
    pub(crate) provider: String,

    /// How many orders were placed
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) orders: u32,
}

/// How long a provider may take to list its charges.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a number from 0 to 1".to_owned()),
    }
}
