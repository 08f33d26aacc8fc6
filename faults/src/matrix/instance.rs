//! One of the processes of a cell.

use std::fs::File;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, Command};
use tokio::sync::mpsc;

use super::role::Role;

/// A process. It ends with this value.
pub(crate) struct Instance {
    process: tokio::process::Child,
    questions: ChildStdin,
    lines: mpsc::UnboundedReceiver<String>,
}

/// How long anything may take that does not wait for a lease.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

impl Instance {
    /// Starts it, and returns when it consumes. Its log is added to the file.
    pub(crate) async fn start(program: &Path, role: &Role, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut process = Command::new(program)
            .env("ROLE", serde_json::to_string(role).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let questions = process.stdin.take().unwrap();
        let (tell, lines) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = output.next_line().await {
                // Nobody listens any more when the cell has ended.
                let _ = tell.send(line);
            }
        });
        let mut instance = Self { process, questions, lines };
        assert_eq!(instance.line().await.as_deref(), Some("ready"));
        instance
    }

    /// The next line; none when it has ended.
    async fn line(&mut self) -> Option<String> {
        tokio::time::timeout(PATIENCE, self.lines.recv()).await.expect("a process says nothing")
    }

    /// Waits until the fault happens, and returns the id of the message that it happens to, if it can be known.
    pub(crate) async fn struck(&mut self) -> String {
        let line = self.line().await.expect("the process ended before the fault happened");
        line.strip_prefix("struck ").expect("the fault comes first").to_owned()
    }

    /// How many deliveries it has in hand.
    pub(crate) async fn in_flight(&mut self) -> u64 {
        self.questions.write_all(b"?\n").await.unwrap();
        let line = self.line().await.expect("the process ended by itself");
        line.strip_prefix("flight ").unwrap().parse().unwrap()
    }

    /// Sends it a signal by its name.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.process.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().await.unwrap().success());
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        // It waits for the end of what it reads.
        drop(self.questions);
        tokio::time::timeout(PATIENCE, self.process.wait()).await.unwrap().unwrap()
    }

    /// Asks it to end, and returns whether its counts added up, when it has.
    pub(crate) async fn stop(mut self) -> bool {
        self.signal("TERM").await;
        let line = self.line().await.expect("it ended without a word");
        let status = self.ended().await;
        assert!(status.success(), "{status}");
        line.starts_with("ended true ")
    }
}
