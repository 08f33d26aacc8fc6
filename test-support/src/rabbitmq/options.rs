use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    sync::Arc,
    time::Duration,
};

use rustix::process::Signal;

use super::{RabbitMq, SERVER, port_mapper};
use crate::{
    error::{StartError, StartFailure},
    folder::Folder,
    port::Port,
    process::Launch,
    program::Program,
    server::{Plan, Server, with_fresh_ports},
};

/// What a node is to be started with.
#[derive(Debug, Clone, Default)]
pub struct RabbitMqOptions {
    config: String,
    plugins: Vec<String>,
    tls: Option<TlsListener>,
    /// What nodes of one cluster have in common.
    pub(super) cookie: Option<String>,
    pub(super) name: Option<String>,
}

/// A second port, which speaks TLS. All of it is PEM text.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_structs, reason = "all of it is needed, and made by a test")]
pub struct TlsListener {
    /// What the node shows.
    pub certificate: String,
    /// The private key to it.
    pub key: String,
    /// The authorities that the certificates of clients are verified by; without them no client is asked for one, and with
    /// them each has to show one.
    pub client_authorities: Option<String>,
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

    /// Opens a second port, which speaks TLS.
    #[must_use]
    pub fn tls(mut self, listener: TlsListener) -> Self {
        self.tls = Some(listener);
        self
    }

    /// Starts the node and waits until it speaks AMQP.
    ///
    /// # Errors
    /// If it is not installed, or does not start; the error holds the end of its log.
    pub fn start(&self) -> Result<RabbitMq, StartError> {
        self.start_with(&Arc::new(port_mapper::start()?))
    }

    /// Starts the node beside others that the port mapper knows.
    pub(super) fn start_with(&self, port_mapper: &Arc<Server>) -> Result<RabbitMq, StartError> {
        let mut name = String::new();
        let broker = with_fresh_ports(SERVER, || self.plan(port_mapper.port(), &mut name))?;
        let ctl = CTL_PROGRAM.find().map_err(|failure| StartError { server: SERVER, failure })?;
        Ok(RabbitMq { broker, ctl, name, _port_mapper: Arc::clone(port_mapper) })
    }

    fn plan(&self, port_mapper: u16, name: &mut String) -> Result<Plan, StartFailure> {
        let program = SERVER_PROGRAM.find()?;
        let folder = Folder::new("rabbitmq", None)?;
        let port = Port::reserve_for_server()?;
        let distribution = Port::reserve_for_server()?;
        let tls = self.tls.as_ref().map(|_| Port::reserve_for_server()).transpose()?;
        *name = match &self.name {
            Some(name) => format!("{name}@localhost"),
            None => format!("mmate{}@localhost", port.number()),
        };
        self.write(&folder, tls.as_ref())?;
        let environment = environment(&folder, name, &port, &distribution, port_mapper);
        Ok(Plan {
            launch: Launch::new(program, &folder).environment(environment),
            prepare: None,
            answers: speaks_amqp,
            stop: Signal::TERM,
            folder,
            ports: [port, distribution].into_iter().chain(tls).collect(),
        })
    }

    /// Writes the node's files.
    fn write(&self, folder: &Folder, tls_port: Option<&Port>) -> Result<(), StartFailure> {
        let mut config = format!("{CONFIG}{}", self.config);
        if let (Some(tls), Some(port)) = (&self.tls, tls_port) {
            config.push_str(&tls.write(folder, port)?);
        }
        folder.write("rabbitmq.conf", &config)?;
        folder.write("plugins", &format!("[{}].\n", self.plugins.join(",")))?;
        let cookie = self.cookie.clone().unwrap_or_else(new_cookie);
        folder.write(".erlang.cookie", &cookie)?;
        folder.make_folder("conf.d").map(drop)
    }
}

impl TlsListener {
    /// Writes its files, and returns the lines that name them.
    fn write(&self, folder: &Folder, port: &Port) -> Result<String, StartFailure> {
        let path = |name: &str| folder.join(name).display().to_string();
        folder.write(CERTIFICATE, &self.certificate)?;
        folder.write(KEY, &self.key)?;
        let mut lines = format!(
            "listeners.ssl.default = 127.0.0.1:{}\nssl_options.certfile = {}\nssl_options.keyfile = {}\n",
            port.number(),
            path(CERTIFICATE),
            path(KEY),
        );
        if let Some(authorities) = &self.client_authorities {
            folder.write(AUTHORITIES, authorities)?;
            lines.push_str(&format!(
                "ssl_options.cacertfile = {}\nssl_options.verify = verify_peer\n\
                 ssl_options.fail_if_no_peer_cert = true\n",
                path(AUTHORITIES),
            ));
        }
        Ok(lines)
    }
}

pub(super) const CERTIFICATE: &str = "certificate.pem";
pub(super) const KEY: &str = "key.pem";
const AUTHORITIES: &str = "authorities.pem";

/// Its place among the ports.
pub(super) const TLS_PORT: usize = 2;

pub(super) fn new_cookie() -> String {
    format!("{:032x}", fastrand::u128(..))
}

/// What the node and `rabbitmqctl` find everything by.
fn environment(
    folder: &Folder,
    name: &str,
    port: &Port,
    distribution: &Port,
    port_mapper: u16,
) -> Vec<(&'static str, String)> {
    let path = |name| folder.join(name).to_string_lossy().into_owned();
    vec![
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
        ("RABBITMQ_NODENAME", name.to_owned()),
        ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".to_owned()),
        ("RABBITMQ_NODE_PORT", port.number().to_string()),
        ("RABBITMQ_PID_FILE", path("pid")),
        ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", format!("{LOOPBACK} {NO_BUSY_WAITING}")),
    ]
}

/// Debian's wrappers in /usr/sbin switch to an account of their own; these scripts run as whoever calls them.
const FOLDERS: &[&str] = &["/usr/lib/rabbitmq/bin", "/opt/homebrew/sbin"];
const SERVER_PROGRAM: Program =
    Program { name: "rabbitmq-server", package: "rabbitmq-server", folders: FOLDERS };
const CTL_PROGRAM: Program =
    Program { name: "rabbitmqctl", package: "rabbitmq-server", folders: FOLDERS };

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
