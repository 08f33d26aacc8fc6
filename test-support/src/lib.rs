//! Private servers for mmate's own tests: RabbitMQ, Redis, PostgreSQL and MariaDB on loopback, each on free ports and with
//! its data in a temporary folder.
//!
//! Most tests share the servers of the run. `scripts/test` starts them; for a single run `scripts/with-servers cargo test …`
//! does. Such a test asks for the address and keeps to names of its own:
//!
//! ```no_run
//! let url = mmate_test_support::amqp_url();
//! let queue = mmate_test_support::unique("orders");
//! ```
//!
//! A test that harms its server starts one for itself:
//!
//! ```no_run
//! use mmate_test_support::RabbitMq;
//!
//! let mut broker = RabbitMq::start()?;
//! broker.kill();
//! broker.start_again()?;
//! # Ok::<(), mmate_test_support::StartError>(())
//! ```
//!
//! A service of ours in a process of its own is a [`ServiceProcess`].
//!
//! A server ends with the value that stands for it. It ends too, and its folder is removed, when the test process panics,
//! is interrupted or is killed.

mod certificates;
mod error;
mod folder;
mod mariadb;
mod port;
mod postgresql;
mod process;
mod program;
mod rabbitmq;
mod redis;
mod server;
mod service;
mod shared;
mod unique;

pub use certificates::{Authority, Pair};
pub use error::{CtlError, LogTail, StartError, StartFailure, StopError};
pub use mariadb::{MariaDb, MariaDbOptions};
pub use port::Port;
pub use postgresql::{PostgreSql, PostgreSqlOptions};
pub use process::Minder;
pub use rabbitmq::{RabbitMq, RabbitMqCluster, RabbitMqOptions, TlsListener};
pub use redis::{Redis, RedisCluster, RedisOptions, RedisSentinel};
pub use service::{Answer, ServiceProcess, until};
pub use shared::{amqp_url, mariadb_url, postgres_url, redis_url};
pub use unique::unique;
