//! A process that is stopped past the lease of its lock, and goes on.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, SqliteConnection};

/// A process, which ends with this value.
struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    fn start(folder: &Path, name: &str, options: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fenced"))
            .arg(name)
            .arg("--folder")
            .arg(folder)
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines }
    }

    fn expect(&self, line: &str) {
        assert_eq!(self.lines.recv_timeout(Duration::from_secs(60)).unwrap(), line);
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    fn go_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What stands in the order after a process was stopped past its lease and overtaken, and went on;
/// `late` is what it says then.
async fn overtaken(options: &[&str], late: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut first = Process::start(folder.path(), "first", options);
    first.expect("inside");
    first.signal("STOP");
    let mut second = Process::start(folder.path(), "second", options);
    second.expect("inside");
    second.go_on();
    second.expect("second wrote 1");
    first.signal("CONT");
    first.go_on();
    first.expect(late);
    let file = SqliteConnectOptions::new().filename(folder.path().join("orders.db"));
    let mut connection = SqliteConnection::connect_with(&file).await.unwrap();
    sqlx::query_scalar("SELECT state FROM orders").fetch_one(&mut connection).await.unwrap()
}

/// S19, S20, F10
#[tokio::test]
async fn the_write_of_a_process_that_was_stopped_past_its_lease_is_refused_by_its_fence() {
    assert_eq!(overtaken(&[], "first wrote 0").await, "second");
}

/// S19: a lock without a fence does not prevent it.
#[tokio::test]
async fn without_a_fence_it_overwrites_what_came_after_it() {
    assert_eq!(overtaken(&["--unfenced"], "first wrote 1").await, "first");
}
