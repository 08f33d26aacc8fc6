//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Measures mmate beside its client library and what people write by hand.
///
/// Needs a RabbitMQ, a PostgreSQL and a Redis; `scripts/bench` starts private ones and builds this
/// with optimisation. Figures go to the terminal and into a folder.
#[derive(Debug, Clone, Parser)]
#[command(name = "scripts/bench")]
pub(crate) struct Options {
    /// The cases to run, such as `P1` or `prefetch`; all of them if none is named
    #[arg(value_name = "CASE")]
    pub(crate) cases: Vec<String>,

    /// Lists the cases with their goals, and ends
    #[arg(long)]
    pub(crate) list: bool,

    /// How often each contender runs, after one round of warming up
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,

    /// How many messages a run handles, as a share of what the case was made for: 0.1 for a quick look
    #[arg(long, default_value_t = 1.0, value_parser = share)]
    pub(crate) size: f64,

    /// The folder that a page, its figures as JSON and a plot of each case go to
    #[arg(long, default_value = "target/bench")]
    pub(crate) out: PathBuf,

    /// Consumes that queue until it is killed, as a part of a case
    #[arg(long, hide = true)]
    pub(crate) consume: Option<String>,

    #[arg(long, env = "MMATE_TEST_AMQP_URL", hide = true)]
    pub(crate) amqp: Option<String>,
    #[arg(long, env = "MMATE_TEST_POSTGRES_URL", hide = true)]
    pub(crate) postgres: Option<String>,
    #[arg(long, env = "MMATE_TEST_REDIS_URL", hide = true)]
    pub(crate) redis: Option<String>,
    /// Runs that contender of a case once and prints its allocations, as the twin
    #[arg(long, hide = true)]
    pub(crate) count: Option<String>,

    #[arg(long, env = "MMATE_BENCH_COUNTED", hide = true)]
    pub(crate) counted: Option<PathBuf>,
    #[arg(long, env = "MMATE_BENCH_PEERS", hide = true)]
    pub(crate) peers: Option<PathBuf>,
}

impl Options {
    /// What measures a case again.
    pub(crate) fn command(&self, case: &str) -> String {
        format!("scripts/bench {case} --rounds {} --size {}", self.rounds, self.size)
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.001..=100.0).contains(&share) => Ok(share),
        _ => Err("a number from 0.001 to 100".to_owned()),
    }
}
