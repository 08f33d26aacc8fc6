//! The service as a process of its own.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{ChildStdout, Command};

use crate::shop::{Report, Shop};

/// A process that runs a [`Shop`]. It ends with this value.
#[derive(Debug)]
pub struct Child {
    process: tokio::process::Child,
    output: Lines<BufReader<ChildStdout>>,
}

/// How long a start or a drain may take.
const PATIENCE: Duration = Duration::from_secs(60);

impl Child {
    /// Starts it, and returns when it consumes. `program` is the binary `consumer` of this package, which cargo names to
    /// its tests only.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start(program: impl AsRef<Path>, shop: &Shop) -> Self {
        let mut process = Command::new(program.as_ref())
            .env("SHOP", serde_json::to_string(shop).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut child = Self { process, output };
        assert_eq!(child.line().await.as_deref(), Some("ready"));
        child
    }

    async fn line(&mut self) -> Option<String> {
        tokio::time::timeout(PATIENCE, self.output.next_line()).await.unwrap().unwrap()
    }

    /// Its process id.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id().unwrap()
    }

    /// Sends it a signal by its name, such as `STOP`.
    ///
    /// # Panics
    /// If it has ended.
    pub async fn signal(&self, name: &str) {
        let id = self.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().await.unwrap();
        assert!(sent.success());
    }

    /// Asks it to end (`SIGTERM`), and returns its report when it has.
    ///
    /// # Panics
    /// If it does not end well.
    pub async fn stop(mut self) -> Report {
        self.signal("TERM").await;
        let report = self.line().await.expect("it ended without a report");
        let status = tokio::time::timeout(PATIENCE, self.process.wait()).await.unwrap().unwrap();
        assert!(status.success(), "{status}");
        serde_json::from_str(&report).unwrap()
    }

    /// The most memory that it had at a time, in bytes. On Linux only.
    #[must_use]
    pub fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(peak.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
    }
}
