//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use mmate_examples::sign_in::secret;

/// Takes photos that clients send more than once, stores and delivers each once, and answers every copy alike.
///
/// Without a command: two servers in one process, and clients that send every photo three times. Exit code: 0 if each was
/// stored and delivered once, 1 if not, 2 if it could not run.
#[derive(Debug, Parser)]
#[command(name = "photos", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) demo: DemoOptions,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serves clients of Socket.IO; as many servers as you like
    Serve(ServerOptions),
}

#[derive(Debug, Args)]
pub(crate) struct DemoOptions {
    /// How many photos are sent, each of them three times
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) photos: u32,

    /// The database of who got what: sqlite:FILE, postgres://… or mysql://… [default: a temporary file]
    #[arg(long, value_name = "URL")]
    pub(crate) database: Option<String>,

    /// Where it is kept what was answered: memory, sqlite:FILE, or the URL of a Redis, a PostgreSQL or a MariaDB
    #[arg(long, value_name = "STORE", default_value = "memory")]
    pub(crate) store: String,

    /// The servers tell each other of photos over this RabbitMQ [default: a broker inside this process]
    #[arg(long, value_name = "URL")]
    pub(crate) broker: Option<String>,

    #[command(flatten)]
    pub(crate) work: WorkOptions,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ServerOptions {
    /// Where it listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8100")]
    pub(crate) listen: SocketAddr,

    /// What tokens are signed with; the same for all servers
    #[arg(long, env = "PHOTOS_SECRET", value_name = "TEXT", hide_env_values = true, value_parser = secret)]
    pub(crate) secret: String,

    /// The folder of the photos, which all servers share
    #[arg(long, value_name = "FOLDER", default_value = "photos")]
    pub(crate) folder: PathBuf,

    /// The database of who got what: sqlite:FILE, postgres://… or mysql://…
    #[arg(long, value_name = "URL", default_value = "sqlite:photos.db")]
    pub(crate) database: String,

    /// Where it is kept what was answered: sqlite:FILE, or the URL of a Redis, a PostgreSQL or a MariaDB; or memory, for one
    /// server
    #[arg(long, value_name = "STORE", default_value = "sqlite:photo-records.db")]
    pub(crate) store: String,

    /// The servers tell each other of photos over this RabbitMQ [default: each looks into the database every two seconds]
    #[arg(long, value_name = "URL")]
    pub(crate) broker: Option<String>,

    #[command(flatten)]
    pub(crate) work: WorkOptions,
}

/// How a server works.
#[derive(Debug, Clone, Args)]
pub(crate) struct WorkOptions {
    /// The largest photo, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 5 * 1024 * 1024, value_parser = clap::value_parser!(u32).range(1..=64 * 1024 * 1024))]
    pub(crate) largest: u32,

    /// For how long an answer is repeated, in hours
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=8_760))]
    keep: u32,

    /// How often answers whose time is over are removed, in seconds
    #[arg(long, value_name = "S", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    purge_every: u64,

    /// How many answers a store in memory has at most; the oldest go first
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_most: u32,

    /// For how long a photo is blocked if the server that stores it dies, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..))]
    lease: u64,

    /// How long storing a photo takes beside the writing, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 20)]
    storing_takes: u64,
}

impl WorkOptions {
    pub(crate) fn keep(&self) -> Duration {
        Duration::from_secs(60 * 60 * u64::from(self.keep))
    }

    pub(crate) fn purge_every(&self) -> Duration {
        Duration::from_secs(self.purge_every)
    }

    pub(crate) fn lease(&self) -> Duration {
        Duration::from_millis(self.lease)
    }

    pub(crate) fn storing_takes(&self) -> Duration {
        Duration::from_millis(self.storing_takes)
    }
}
