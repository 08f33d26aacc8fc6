//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::nemesis::Nemesis;

/// Runs a service under load and many faults, and tells what became of every message.
///
/// Servers are private and stopped at the end. Exits with 1 if anything is not as promised.
#[derive(Debug, Clone, Parser)]
#[command(name = "scripts/soak")]
#[non_exhaustive]
pub struct Options {
    /// Which soak
    #[arg(value_enum)]
    pub name: Name,

    /// How many different messages are published
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub messages: Option<u64>,

    /// Which share of them is published twice, the second time up to a minute later
    #[arg(long, value_parser = share)]
    pub duplicates: Option<f64>,

    /// How many faults there are
    #[arg(long)]
    pub faults: Option<u32>,

    /// The seconds from one fault to the next
    #[arg(long, value_parser = seconds)]
    pub every: Option<f64>,

    /// Which faults, in the order in which they come around, instead of the soak's own
    #[arg(long, value_enum, value_delimiter = ',')]
    pub with: Vec<Nemesis>,

    /// How many consumers run beside each other
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub processes: Option<u16>,

    /// What chance begins with; the same seed gives the same faults in the same order
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// The folder that the result page goes to, with its plot and its figures as JSON
    #[arg(long, default_value = "target/soak")]
    pub out: PathBuf,

    /// The folder that the processes' own journals go to; a temporary one if it is not given. A soak that was stopped, by
    /// Ctrl-C or SIGTERM, can go on with them
    #[arg(long)]
    pub journals: Option<PathBuf>,

    /// Goes on with the soak whose journals these are, with new servers; the verdict is about all its parts
    #[arg(long, requires = "journals")]
    pub resume: bool,
}

impl Options {
    /// The command that repeats it, but for the folders.
    pub(super) fn command(&self) -> String {
        let mut command = format!("scripts/soak {}", self.name.as_str());
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                command.push_str(&format!(" --{name} {value}"));
            }
        };
        add("messages", self.messages.map(|value| value.to_string()));
        add("duplicates", self.duplicates.map(|value| value.to_string()));
        add("faults", self.faults.map(|value| value.to_string()));
        add("every", self.every.map(|value| value.to_string()));
        let with: Vec<_> = self.with.iter().filter_map(ValueEnum::to_possible_value).collect();
        let with: Vec<_> = with.iter().map(|value| value.get_name()).collect();
        add("with", (!with.is_empty()).then(|| with.join(",")));
        add("processes", self.processes.map(|value| value.to_string()));
        add("seed", Some(self.seed.to_string()));
        command
    }
}

/// A soak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "these are all")]
pub enum Name {
    /// Effects in the transaction of their record, on PostgreSQL, with every kind of fault
    Tx,
    /// The same, with consumers that are killed all the time
    Kill,
    /// Records in Redis, effects elsewhere, with every kind of fault
    Redis,
    /// Messages in order by key, with the active consumer killed again and again
    Order,
}

impl Name {
    /// As on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tx => "tx",
            Self::Kill => "kill",
            Self::Redis => "redis",
            Self::Order => "order",
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a number from 0 to 1".to_owned()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.05..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number of seconds from 0.05 to 3600".to_owned()),
    }
}
