use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    error::{StartError, StartFailure, StopError},
    folder::{Account, Folder},
    port::Port,
    process::Launch,
    program::Program,
    server::{Plan, Server, with_fresh_ports},
};

/// A PostgreSQL of its own. It keeps what it committed over a kill; it would not over a power cut, since `fsync` is off.
///
/// Dropping it ends it and removes its data.
#[derive(Debug)]
pub struct PostgreSql {
    server: Server,
}

impl PostgreSql {
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
    /// use mmate_test_support::PostgreSql;
    ///
    /// let durable = PostgreSql::options().config("fsync = on").start()?;
    /// # Ok::<(), mmate_test_support::StartError>(())
    /// ```
    #[must_use]
    pub fn options() -> PostgreSqlOptions {
        PostgreSqlOptions::default()
    }

    /// `postgres://postgres@127.0.0.1:PORT/postgres`: the user may do anything, and no password is asked for.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port())
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

    /// Kills the server (`SIGKILL`). Its data stays for [`start_again`](Self::start_again).
    pub fn kill(&mut self) {
        self.server.kill();
        self.return_shared_memory();
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
        self.server.signal_all(Signal::STOP);
    }

    /// Lets a paused server go on (`SIGCONT`).
    pub fn resume(&self) {
        self.server.signal_all(Signal::CONT);
    }

    /// Removes the System V segment of a killed server, which would stay until the machine restarts.
    fn return_shared_memory(&self) {
        let lock_file = self.folder().join("data/postmaster.pid");
        let content = fs::read_to_string(lock_file).unwrap_or_default();
        // The seventh line: key and id of the segment (`src/include/utils/pidfile.h`).
        let segment = content.lines().nth(6).and_then(|line| line.split_whitespace().nth(1));
        if let Some(segment) = segment {
            // If it fails, a few bytes stay.
            let _ = self.server.command(Path::new("ipcrm")).args(["-m", segment]).output();
        }
    }
}

/// What a PostgreSQL is to be started with.
#[derive(Debug, Clone, Default)]
pub struct PostgreSqlOptions {
    config: String,
}

impl PostgreSqlOptions {
    /// Adds lines to the server's `postgresql.conf`, after those that every server gets.
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
    pub fn start(&self) -> Result<PostgreSql, StartError> {
        with_fresh_ports(SERVER, || self.plan()).map(|server| PostgreSql { server })
    }

    fn plan(&self) -> Result<Plan, StartFailure> {
        let initdb = Program { name: "initdb", ..PROGRAM }.find()?;
        let postgres = Program { name: "postgres", ..PROGRAM }.find()?;
        let account = Account::instead_of_root("postgres")?;
        let folder = Folder::new("postgresql", account)?;
        let port = Port::reserve_for_server()?;
        let config = format!("port = {}\n{CONFIG}{}", port.number(), self.config);
        let config = folder.write("postgresql.conf", &config)?;
        // Whoever kills them leaves shared memory behind. initdb has to be waited for: its first steps end no other way.
        Ok(Plan {
            prepare: Some(
                Launch::new(initdb, &folder).arguments(INITDB).abandoned_by(Signal::CONT),
            ),
            launch: Launch::new(postgres, &folder)
                .abandoned_by(Signal::QUIT)
                .arguments(["-D", "data"])
                .arguments([format!("--config_file={}", config.display())]),
            answers: lets_in,
            // Its "fast" way, which does not wait for clients to leave.
            stop: Signal::INT,
            folder,
            ports: vec![port],
        })
    }
}

const SERVER: &str = "PostgreSQL";

const PROGRAM: Program = Program {
    name: "postgres",
    package: "postgresql",
    folders: &["/usr/lib/postgresql/*/bin", "/opt/homebrew/bin"],
};

const INITDB: [&str; 6] = [
    "--pgdata=data",
    "--username=postgres",
    "--auth=trust",
    "--encoding=UTF8",
    "--locale=C",
    "--no-sync",
];

/// Shared memory in the data folder goes with it.
const CONFIG: &str = "\
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
dynamic_shared_memory_type = mmap
max_connections = 300
fsync = off
";

/// Whether the server lets its user in. While it starts, or recovers, it answers with an error.
fn lets_in(port: u16) -> bool {
    // A StartupMessage of protocol 3.0; the length includes itself (PostgreSQL's manual, "Message Formats").
    const PARAMETERS: &[u8] = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    let ask = || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(&(PARAMETERS.len() as u32 + 4).to_be_bytes())?;
        stream.write_all(PARAMETERS)?;
        let mut message_type = [0];
        stream.read_exact(&mut message_type)?;
        Ok::<bool, std::io::Error>(message_type == *b"R")
    };
    ask().unwrap_or(false)
}
