use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    error::{CtlError, LogTail, StartError, StartFailure, StopError},
    folder::Folder,
    port::Port,
    process::Launch,
    program::Program,
    server::{Plan, Server, with_fresh_ports},
};

/// A RabbitMQ node of its own: own ports, data, Erlang cookie and port mapper (epmd).
///
/// Dropping it ends it and removes its data.
#[derive(Debug)]
pub struct RabbitMq {
    broker: Server,
    ctl: PathBuf,
    /// After the broker, which tells it when it comes and goes.
    _port_mapper: Server,
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

/// What a node is to be started with.
#[derive(Debug, Clone, Default)]
pub struct RabbitMqOptions {
    config: String,
    plugins: Vec<String>,
}

impl RabbitMqOptions {
    /// Adds lines to the node's `rabbitmq.conf`, after those that every node gets.
    #[must_use]
    pub fn config(mut self, lines: &str) -> Self {
        self.config.push_str(lines);
        self.config.push('\n');
        self
    }

    /// Enables a plugin, as in `rabbitmq_consistent_hash_exchange`. By default there is none.
    #[must_use]
    pub fn plugin(mut self, name: &str) -> Self {
        self.plugins.push(name.to_owned());
        self
    }

    /// Starts the node and waits until it speaks AMQP.
    ///
    /// # Errors
    /// If it is not installed, or does not start; the error holds the end of its log.
    pub fn start(&self) -> Result<RabbitMq, StartError> {
        let port_mapper = with_fresh_ports(SERVER, plan_port_mapper)?;
        let broker = with_fresh_ports(SERVER, || self.plan(port_mapper.port()))?;
        let ctl = CTL_PROGRAM.find().map_err(|failure| StartError { server: SERVER, failure })?;
        Ok(RabbitMq { broker, ctl, _port_mapper: port_mapper })
    }

    fn plan(&self, port_mapper: u16) -> Result<Plan, StartFailure> {
        let program = SERVER_PROGRAM.find()?;
        let folder = Folder::new("rabbitmq", None)?;
        let port = Port::reserve_for_server()?;
        let distribution = Port::reserve_for_server()?;
        let environment = self.write(&folder, &port, &distribution, port_mapper)?;
        Ok(Plan {
            launch: Launch::new(program, &folder).environment(environment),
            prepare: None,
            answers: speaks_amqp,
            stop: Signal::TERM,
            folder,
            ports: vec![port, distribution],
        })
    }

    /// Writes the node's files, and returns the environment that it and `rabbitmqctl` find them by.
    fn write(
        &self,
        folder: &Folder,
        port: &Port,
        distribution: &Port,
        port_mapper: u16,
    ) -> Result<Vec<(&'static str, String)>, StartFailure> {
        let path = |name| folder.join(name).to_string_lossy().into_owned();
        folder.write("rabbitmq.conf", &format!("{CONFIG}{}", self.config))?;
        folder.write("plugins", &format!("[{}].\n", self.plugins.join(",")))?;
        folder.write(".erlang.cookie", &format!("{:032x}", fastrand::u128(..)))?;
        folder.make_folder("conf.d")?;
        let name = format!("mmate{}", port.number());
        Ok(vec![
            ("ERL_CRASH_DUMP_SECONDS", "0".to_owned()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
            ("ERL_EPMD_PORT", port_mapper.to_string()),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", path("advanced.config")),
            ("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf")),
            ("RABBITMQ_CONFIG_FILES", path("conf.d")),
            ("RABBITMQ_CONF_ENV_FILE", "/dev/null".to_owned()),
            ("RABBITMQ_CTL_DIST_PORT_MAX", "0".to_owned()),
            ("RABBITMQ_CTL_DIST_PORT_MIN", "0".to_owned()),
            ("RABBITMQ_CTL_ERL_ARGS", format!("{LOOPBACK} {NO_BUSY_WAITING}")),
            ("RABBITMQ_DIST_PORT", distribution.number().to_string()),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins")),
            ("RABBITMQ_GENERATED_CONFIG_DIR", path("generated")),
            ("RABBITMQ_LOG_BASE", path("log")),
            ("RABBITMQ_MNESIA_BASE", path("data")),
            ("RABBITMQ_NODENAME", format!("{name}@localhost")),
            ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".to_owned()),
            ("RABBITMQ_NODE_PORT", port.number().to_string()),
            ("RABBITMQ_PID_FILE", path("pid")),
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", format!("{LOOPBACK} {NO_BUSY_WAITING}")),
        ])
    }
}

const SERVER: &str = "RabbitMQ";

/// Debian's wrappers in /usr/sbin switch to an account of their own; these scripts run as whoever calls them.
const FOLDERS: &[&str] = &["/usr/lib/rabbitmq/bin", "/opt/homebrew/sbin"];
const SERVER_PROGRAM: Program =
    Program { name: "rabbitmq-server", package: "rabbitmq-server", folders: FOLDERS };
const CTL_PROGRAM: Program =
    Program { name: "rabbitmqctl", package: "rabbitmq-server", folders: FOLDERS };
const PORT_MAPPER_PROGRAM: Program = Program { name: "epmd", package: "erlang-base", folders: &[] };

/// Alarms only when a test raises one.
const CONFIG: &str = "\
disk_free_limit.absolute = 1MB
vm_memory_high_watermark.relative = 0.8
log.console = false
log.file = rabbitmq.log
log.file.level = info
";

const LOOPBACK: &str = "-kernel inet_dist_use_interface {127,0,0,1}";
const NO_BUSY_WAITING: &str = "+sbwt none +sbwtdcpu none +sbwtdio none";

/// Erlang's port mapper. A node starts one by itself if there is none, but that one would outlive it.
fn plan_port_mapper() -> Result<Plan, StartFailure> {
    let program = PORT_MAPPER_PROGRAM.find()?;
    let folder = Folder::new("epmd", None)?;
    let port = Port::reserve_for_server()?;
    let number = port.number().to_string();
    Ok(Plan {
        // Without `-daemon` it stays in the group that it is minded by.
        launch: Launch::new(program, &folder).arguments([
            "-port",
            &number,
            "-address",
            "127.0.0.1",
        ]),
        prepare: None,
        answers: |port| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok(),
        stop: Signal::TERM,
        folder,
        ports: vec![port],
    })
}

/// Whether the server answers the protocol header with a method frame, which `Connection.Start` is (AMQP 0-9-1, 2.2.4 and
/// 2.3.5).
fn speaks_amqp(port: u16) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        let mut frame_type = [0];
        stream.read_exact(&mut frame_type)?;
        Ok::<bool, std::io::Error>(frame_type == [1])
    };
    ask().unwrap_or(false)
}
