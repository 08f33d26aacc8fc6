//! The servers that contenders use.

use std::path::{Path, PathBuf};

use crate::{Options, Result};

/// Where the servers are.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    amqp: Option<String>,
    postgres: Option<String>,
    redis: Option<String>,
    peers: Option<PathBuf>,
    counted: Option<PathBuf>,
    /// How many messages a run handles, as a share of what the case was made for.
    size: f64,
}

impl Servers {
    pub(crate) fn of(options: &Options) -> Self {
        let Options { amqp, postgres, redis, peers, counted, size, .. } = options.clone();
        Self { amqp, postgres, redis, peers, counted, size }
    }

    pub(crate) fn amqp(&self) -> Result<&str> {
        given(self.amqp.as_deref(), "RabbitMQ", "MMATE_TEST_AMQP_URL")
    }

    pub(crate) fn postgres(&self) -> Result<&str> {
        given(self.postgres.as_deref(), "PostgreSQL", "MMATE_TEST_POSTGRES_URL")
    }

    pub(crate) fn redis(&self) -> Result<&str> {
        given(self.redis.as_deref(), "Redis", "MMATE_TEST_REDIS_URL")
    }

    /// The program that consumes with other crates.
    pub(crate) fn peers(&self) -> Result<&Path> {
        let missing =
            "no program with the peers: run scripts/bench, which builds it from bench/peers";
        self.peers.as_deref().ok_or_else(|| missing.into())
    }

    /// The program that counts allocations.
    pub(crate) fn counted(&self) -> Result<&Path> {
        let missing = "no program that counts allocations: run scripts/bench, which builds it";
        self.counted.as_deref().ok_or_else(|| missing.into())
    }

    /// What tells another of these programs the same.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let of = |name: &str, url: &Option<String>| Some(format!("--{name}={}", url.as_ref()?));
        let urls =
            [of("amqp", &self.amqp), of("postgres", &self.postgres), of("redis", &self.redis)];
        urls.into_iter().flatten().chain([format!("--size={}", self.size)]).collect()
    }

    /// So many messages in a run of full size.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a number of messages"
    )]
    pub(crate) fn messages(&self, full: u64) -> u64 {
        ((full as f64 * self.size) as u64).max(100)
    }
}

fn given<'a>(url: Option<&'a str>, server: &str, variable: &str) -> Result<&'a str> {
    url.ok_or_else(|| {
        format!("no {server}: run scripts/bench, which starts one, or set {variable}").into()
    })
}
