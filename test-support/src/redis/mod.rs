mod ask;
mod cluster;
mod sentinel;

use std::{io, path::Path};

use rustix::process::Signal;

use crate::{
    error::{StartError, StartFailure, StopError},
    folder::Folder,
    port::Port,
    process::Launch,
    program::Program,
    server::{Plan, Server, with_fresh_ports},
};

use self::ask::ask;
pub use self::{cluster::RedisCluster, sentinel::RedisSentinel};

/// A Redis of its own, which keeps what it acknowledged over a kill: it writes an append-only file, before it answers, unless told
/// otherwise.
///
/// Dropping it ends it and removes its data.
#[derive(Debug)]
pub struct Redis {
    server: Server,
}

impl Redis {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    /// If it is not installed, or does not start; the error holds the end of its log.
    pub fn start() -> Result<Self, StartError> {
        Self::options().start()
    }

    /// A server with settings of one's own.
    ///
    /// ```no_run
    /// use mmate_test_support::Redis;
    ///
    /// let forgetful = Redis::options().config("appendonly no").start()?;
    /// # Ok::<(), mmate_test_support::StartError>(())
    /// ```
    #[must_use]
    pub fn options() -> RedisOptions {
        RedisOptions::default()
    }

    /// `redis://127.0.0.1:PORT/`
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port())
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// The folder of its data and logs, which goes with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.server.folder()
    }

    /// What the server says to a command, such as `CONFIG SET appendonly no`; a list comes as lines.
    ///
    /// # Errors
    /// If the server cannot be reached, or says that it is an error.
    pub fn ask(&self, command: &str) -> io::Result<String> {
        ask(self.port(), command)
    }

    /// Kills the server (`SIGKILL`). Its data stays for [`start_again`](Self::start_again).
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Stops the server gracefully. Its data stays for [`start_again`](Self::start_again).
    ///
    /// # Errors
    /// If it did not stop in time; it is killed then.
    pub fn stop(&mut self) -> Result<(), StopError> {
        self.server.stop()
    }

    /// Starts the server, unless it runs, with its data on its port, and waits until it answers.
    ///
    /// # Errors
    /// If it does not start; the error holds the end of its log.
    pub fn start_again(&mut self) -> Result<(), StartError> {
        self.server.start_again()
    }

    /// Lets the server stand still (`SIGSTOP`): its connections stay open and nothing answers.
    pub fn pause(&self) {
        self.server.signal(Signal::STOP);
    }

    /// Lets a paused server go on (`SIGCONT`).
    pub fn resume(&self) {
        self.server.signal(Signal::CONT);
    }
}

/// What a Redis is to be started with.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    config: String,
    role: Role,
}

/// What the program is started as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Role {
    #[default]
    Server,
    ClusterNode,
    Sentinel,
}

impl RedisOptions {
    /// Adds lines to the server's `redis.conf`, after those that every server gets.
    #[must_use]
    pub fn config(mut self, lines: &str) -> Self {
        self.config.push_str(lines);
        self.config.push('\n');
        self
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    /// If it is not installed, or does not start; the error holds the end of its log.
    pub fn start(&self) -> Result<Redis, StartError> {
        with_fresh_ports(SERVER, || self.plan()).map(|server| Redis { server })
    }

    pub(crate) fn plan(&self) -> Result<Plan, StartFailure> {
        let program = PROGRAM.find()?;
        let folder = Folder::new("redis", None)?;
        let port = Port::reserve_for_server()?;
        let mut ports = vec![port];
        let mut lines =
            format!("port {}\ndir {}\n{COMMON}", ports[0].number(), folder.path().display());
        if self.role != Role::Sentinel {
            lines.push_str(CONFIG);
        }
        if self.role == Role::ClusterNode {
            let bus = Port::reserve_for_server()?;
            lines.push_str(&format!("cluster-enabled yes\ncluster-port {}\n", bus.number()));
            ports.push(bus);
        }
        lines.push_str(&self.config);
        let mut arguments = vec![folder.write("redis.conf", &lines)?.into_os_string()];
        if self.role == Role::Sentinel {
            arguments.push("--sentinel".into());
        }
        Ok(Plan {
            launch: Launch::new(program, &folder).arguments(arguments),
            prepare: None,
            answers: pongs,
            stop: Signal::TERM,
            folder,
            ports,
        })
    }
}

const SERVER: &str = "Redis";

const PROGRAM: Program = Program { name: "redis-server", package: "redis-server", folders: &[] };

const COMMON: &str = "\
bind 127.0.0.1
protected-mode yes
daemonize no
";

/// By default Redis answers before it writes while its disk is slow, and a kill then loses up to two seconds.
const CONFIG: &str = "\
save \"\"
appendonly yes
appendfsync always
";

/// Whether the server answers a `PING`. While it loads its data it answers with an error.
fn pongs(port: u16) -> bool {
    ask(port, "PING").is_ok_and(|answer| answer == "PONG")
}
