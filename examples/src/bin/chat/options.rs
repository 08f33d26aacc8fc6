//! The command line.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use mmate_examples::sign_in::secret;

/// A chat on several servers that never doubles a message.
///
/// Without a command: two servers in one process, on ports 8110 and 8111, to try it in a browser.
#[derive(Debug, Parser)]
#[command(name = "chat", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// Where the servers listen, as many as there are addresses
    #[arg(
        long,
        value_name = "ADDRESSES",
        value_delimiter = ',',
        default_value = "127.0.0.1:8110,127.0.0.1:8111"
    )]
    pub(crate) listen: Vec<SocketAddr>,

    #[command(flatten)]
    pub(crate) places: Places,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serves users; as many servers as you like
    Serve(ServeOptions),
    /// Makes one conversation of those that the same two users have, and makes sure that it stays so
    Merge(MergeOptions),
}

#[derive(Debug, Args)]
pub(crate) struct ServeOptions {
    /// Where it listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8110")]
    pub(crate) listen: SocketAddr,

    /// What tokens are signed with; the same for all servers
    #[arg(long, env = "CHAT_SECRET", value_name = "TEXT", hide_env_values = true, value_parser = secret)]
    pub(crate) secret: String,

    /// All servers, as browsers reach them, such as http://127.0.0.1:8110,http://127.0.0.1:8111: a page goes to another one
    /// when its own is away
    #[arg(long, value_name = "URLS", value_delimiter = ',')]
    pub(crate) servers: Vec<String>,

    #[command(flatten)]
    pub(crate) places: Places,
}

/// What the servers share.
#[derive(Debug, Clone, Args)]
pub(crate) struct Places {
    /// The database of conversations and messages: sqlite:FILE, postgres://… or mysql://… [default: sqlite:chat.db, or a
    /// temporary file where no command is given]
    #[arg(long, value_name = "URL")]
    pub(crate) database: Option<String>,

    /// The store of locks and of who made which conversation: sqlite:FILE (another one than the database), or the URL of a
    /// Redis, a PostgreSQL or a MariaDB [default: sqlite:chat-records.db, or memory where no command is given]
    #[arg(long, value_name = "STORE")]
    pub(crate) store: Option<String>,

    /// The RabbitMQ between the servers [default: a broker inside this process, for one server]
    #[arg(long, value_name = "URL")]
    pub(crate) broker: Option<String>,

    /// For how long a conversation is blocked if the server that works on it dies, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..))]
    lease: u64,
}

impl Places {
    pub(crate) fn database(&self) -> &str {
        self.database.as_deref().unwrap_or("sqlite:chat.db")
    }

    pub(crate) fn store(&self) -> &str {
        self.store.as_deref().unwrap_or("sqlite:chat-records.db")
    }

    pub(crate) fn lease(&self) -> Duration {
        Duration::from_millis(self.lease)
    }
}

#[derive(Debug, Args)]
pub(crate) struct MergeOptions {
    /// The database of conversations and messages
    #[arg(long, value_name = "URL", default_value = "sqlite:chat.db")]
    pub(crate) database: String,
}
