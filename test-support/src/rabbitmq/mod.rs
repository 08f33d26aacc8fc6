mod cluster;
mod options;
mod port_mapper;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::process::Signal;

pub use self::{
    cluster::RabbitMqCluster,
    options::{RabbitMqOptions, TlsListener},
};
use crate::{
    error::{CtlError, LogTail, StartError, StopError},
    server::Server,
};

/// A RabbitMQ node of its own: own ports, data, Erlang cookie and port mapper (epmd).
///
/// Dropping it ends it and removes its data.
#[derive(Debug)]
pub struct RabbitMq {
    broker: Server,
    ctl: PathBuf,
    name: String,
    /// After the broker, which tells it when it comes and goes.
    _port_mapper: Arc<Server>,
}

impl RabbitMq {
    /// Starts a node and waits until it speaks AMQP.
    ///
    /// # Errors
    /// If it is not installed, or does not start; the error holds the end of its log.
    pub fn start() -> Result<Self, StartError> {
        Self::options().start()
    }

    /// A node with settings of one's own.
    ///
    /// ```no_run
    /// use mmate_test_support::RabbitMq;
    ///
    /// let broker = RabbitMq::options().config("consumer_timeout = 60000").start()?;
    /// # Ok::<(), mmate_test_support::StartError>(())
    /// ```
    #[must_use]
    pub fn options() -> RabbitMqOptions {
        RabbitMqOptions::default()
    }

    /// `amqp://guest:guest@127.0.0.1:PORT/%2f`
    #[must_use]
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.port())
    }

    /// `amqps://guest:guest@localhost:PORT/%2f`
    ///
    /// # Panics
    /// If it was not started with a [`TlsListener`].
    #[must_use]
    pub fn tls_url(&self) -> String {
        format!("amqps://guest:guest@localhost:{}/%2f", self.tls_port())
    }

    /// The port that speaks TLS.
    ///
    /// # Panics
    /// If it was not started with a [`TlsListener`].
    #[must_use]
    pub fn tls_port(&self) -> u16 {
        self.broker.further_port(options::TLS_PORT).expect("the node was started with TLS")
    }

    /// Shows another certificate from now on (PEM), to new connections.
    ///
    /// # Errors
    /// If the files cannot be written or the node does not take them.
    pub fn show_certificate(&self, certificate: &str, key: &str) -> Result<(), CtlError> {
        let write = || -> io::Result<()> {
            fs::write(self.folder().join(options::CERTIFICATE), certificate)?;
            fs::write(self.folder().join(options::KEY), key)
        };
        let command = || "write the certificate".to_owned();
        write().map_err(|source| CtlError::Run { command: command(), source })?;
        self.ctl(&["eval", "ssl:clear_pem_cache()."]).map(drop)
    }

    /// The node's name, as in `mmate12345@localhost`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The AMQP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.broker.port()
    }

    /// The folder of its data and logs, which goes with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.broker.folder()
    }

    /// Runs `rabbitmqctl` on this node, as in `ctl(&["list_queues", "name", "messages"])` or `ctl(&["eval", "ok."])`, and
    /// returns what it printed. Takes about a second.
    ///
    /// # Errors
    /// If it ends with anything but success; the error holds what it printed.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String, CtlError> {
        let command = || format!("rabbitmqctl {}", arguments.join(" "));
        let output = self
            .broker
            .command(&self.ctl)
            .arg("--quiet")
            .args(arguments)
            .output()
            .map_err(|source| CtlError::Run { command: command(), source })?;
        let printed = String::from_utf8_lossy(&output.stdout);
        if output.status.success() {
            return Ok(printed.into_owned());
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        Err(CtlError::Failed {
            command: command(),
            status: output.status,
            output: LogTail::whole(&format!("{complaint}\n{printed}")),
        })
    }

    /// Kills the node (`SIGKILL`). Its data stays for [`start_again`](Self::start_again).
    pub fn kill(&mut self) {
        self.broker.kill();
    }

    /// Stops the node gracefully. Its data stays for [`start_again`](Self::start_again).
    ///
    /// # Errors
    /// If it did not stop in time; it is killed then.
    pub fn stop(&mut self) -> Result<(), StopError> {
        self.broker.stop()
    }

    /// Starts the node, unless it runs, with its data on its ports, and waits until it speaks AMQP.
    ///
    /// # Errors
    /// If it does not start; the error holds the end of its log.
    pub fn start_again(&mut self) -> Result<(), StartError> {
        self.broker.start_again()
    }

    /// Lets the node stand still (`SIGSTOP`): its connections stay open and nothing answers.
    pub fn pause(&self) {
        self.broker.signal(Signal::STOP);
    }

    /// Lets a paused node go on (`SIGCONT`).
    pub fn resume(&self) {
        self.broker.signal(Signal::CONT);
    }
}

const SERVER: &str = "RabbitMQ";
