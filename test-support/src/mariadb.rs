use std::{
    io::Read,
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

/// A MariaDB of its own. It keeps what it committed over a kill; it would not over a power cut, since it leaves the flushing
/// to the operating system.
///
/// Dropping it ends it and removes its data.
#[derive(Debug)]
pub struct MariaDb {
    server: Server,
}

impl MariaDb {
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
    /// use mmate_test_support::MariaDb;
    ///
    /// let impatient = MariaDb::options().config("innodb_lock_wait_timeout = 1").start()?;
    /// # Ok::<(), mmate_test_support::StartError>(())
    /// ```
    #[must_use]
    pub fn options() -> MariaDbOptions {
        MariaDbOptions::default()
    }

    /// `mysql://root@127.0.0.1:PORT/mmate`: the user may do anything, and no password is asked for.
    #[must_use]
    pub fn url(&self) -> String {
        format!("mysql://root@127.0.0.1:{}/mmate", self.port())
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

/// What a MariaDB is to be started with.
#[derive(Debug, Clone, Default)]
pub struct MariaDbOptions {
    config: String,
}

impl MariaDbOptions {
    /// Adds lines to the server's section of its options file, after those that every server gets.
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
    pub fn start(&self) -> Result<MariaDb, StartError> {
        with_fresh_ports(SERVER, || self.plan()).map(|server| MariaDb { server })
    }

    fn plan(&self) -> Result<Plan, StartFailure> {
        let install = Program { name: "mariadb-install-db", ..PROGRAM }.find()?;
        let mariadbd = Program { name: "mariadbd", ..PROGRAM }.find()?;
        let folder = Folder::new("mariadb", Account::instead_of_root("mysql")?)?;
        let port = Port::reserve_for_server()?;
        folder.write("init.sql", "CREATE DATABASE IF NOT EXISTS mmate;\n")?;
        let path = folder.path().display();
        let options = folder.write(
            "my.cnf",
            &format!(
                "[mariadbd]\nport = {}\ndatadir = {path}/data\nsocket = {path}/socket\npid-file = {path}/pid\n\
                 tmpdir = {path}\ninit-file = {path}/init.sql\n{CONFIG}{}",
                port.number(),
                self.config
            ),
        )?;
        let options = format!("--defaults-file={}", options.display());
        Ok(Plan {
            prepare: Some(Launch::new(install, &folder).arguments([
                "--no-defaults",
                &format!("--datadir={path}/data"),
                &format!("--tmpdir={path}"),
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ])),
            launch: Launch::new(mariadbd, &folder).arguments([options]),
            answers: greets,
            stop: Signal::TERM,
            folder,
            ports: vec![port],
        })
    }
}

const SERVER: &str = "MariaDB";

const PROGRAM: Program = Program {
    name: "mariadbd",
    package: "mariadb-server",
    folders: &["/usr/sbin", "/opt/homebrew/bin"],
};

/// The character set is what Debian's own configuration sets; the server's built-in one is latin1.
const CONFIG: &str = "\
bind-address = 127.0.0.1
skip-name-resolve
character-set-server = utf8mb4
collation-server = utf8mb4_general_ci
max_connections = 300
innodb_buffer_pool_size = 64M
innodb_log_file_size = 32M
innodb_flush_log_at_trx_commit = 2
";

/// Whether the server sends its greeting, which begins with the protocol's version after a header of four bytes. What it
/// sends to those it does not want is an error instead.
fn greets(port: u16) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut packet = [0; 5];
        stream.read_exact(&mut packet)?;
        Ok::<bool, std::io::Error>(packet[4] == 10)
    };
    ask().unwrap_or(false)
}
