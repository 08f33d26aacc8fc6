//! Processes of the example, and what they are asked over HTTP.

use std::ops::Deref;
use std::path::PathBuf;
use std::process::Command;

use mmate_test_support::{Answer, ServiceProcess};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder in which processes share files, and what all of them are started with.
pub(crate) struct Scene {
    pub(crate) folder: TempDir,
    producer: Vec<String>,
    listener: Vec<String>,
}

impl Scene {
    /// With what the example has by default: SQLite files.
    pub(crate) fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), producer: Vec::new(), listener: Vec::new() }
    }

    pub(crate) fn producer_options(mut self, options: &[&str]) -> Self {
        self.producer.extend(options.iter().map(ToString::to_string));
        self
    }

    pub(crate) fn listener_options(mut self, options: &[&str]) -> Self {
        self.listener.extend(options.iter().map(ToString::to_string));
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_event-processor"));
        command.args(arguments).current_dir(self.folder.path());
        command.env_remove("RUST_LOG").env_remove("INSTANCE_ID");
        command
    }

    pub(crate) fn producer(&self) -> Program {
        self.producer_at("127.0.0.1:0")
    }

    /// On that address, as one that is started again.
    pub(crate) fn producer_at(&self, address: &str) -> Program {
        let mut command = self.command(&["producer", "--listen", address]);
        Program::start(self, "producer", command.args(&self.producer))
    }

    pub(crate) fn listener(&self, name: &str, producer: &Program) -> Program {
        self.listener_with(name, producer, &[])
    }

    pub(crate) fn listener_with(&self, name: &str, producer: &Program, more: &[&str]) -> Program {
        let url = format!("ws://{}/listen", producer.address());
        let mut command = self.command(&["listener", "--listen", "127.0.0.1:0"]);
        command.env("INSTANCE_ID", name).args(["--producer", &url]);
        Program::start(self, name, command.args(&self.listener).args(more))
    }
}

/// A process of the example, killed at the end.
pub(crate) struct Program(ServiceProcess);

impl Deref for Program {
    type Target = ServiceProcess;

    fn deref(&self) -> &ServiceProcess {
        &self.0
    }
}

pub(crate) fn json_of(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

impl Program {
    fn start(scene: &Scene, name: &str, command: &mut Command) -> Self {
        Self(ServiceProcess::start(name, scene.folder.path(), command))
    }

    pub(crate) fn kill(self) {
        self.0.kill();
    }

    pub(crate) fn terminate(self) -> Option<i32> {
        self.0.terminate()
    }

    pub(crate) fn post(&self, body: &str) -> Answer {
        self.0.post("/publish", body)
    }

    pub(crate) fn publish(&self, event_id: &str, payload: &Value) {
        let answer = self.post(&json!({"event_id": event_id, "payload": payload}).to_string());
        assert_eq!(answer.status, 202, "{answer:?}");
    }

    /// Publishes events with these numbers.
    pub(crate) fn publish_numbers(&self, numbers: std::ops::Range<u32>) {
        for number in numbers {
            self.publish(&event_id(number), &json!({"number": number}));
        }
    }

    /// How many events this listener is done with in that way.
    pub(crate) fn outcome(&self, word: &str) -> u64 {
        self.metric("event_processor_events_total", &format!("outcome=\"{word}\""))
    }

    /// How many events this listener is done with.
    pub(crate) fn heard(&self) -> u64 {
        ["stored", "duplicate", "conflict"].iter().map(|word| self.outcome(word)).sum()
    }

    /// Everything that is stored, page after page.
    pub(crate) fn stored(&self) -> Vec<Value> {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let page = self.page(&format!("/api/events?limit=1000&after={after}"));
            assert_eq!(page.status, 200, "{page:?}");
            let page = json_of(&page);
            all.extend_from_slice(page["events"].as_array().unwrap());
            match page["next"].as_str() {
                Some(next) => after = next.to_owned(),
                None => return all,
            }
        }
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.page("/health").status == 200
    }

    /// What the health page says of one of the connections.
    pub(crate) fn connection(&self, name: &str) -> Value {
        json_of(&self.page("/health"))["connections"][name]["status"].clone()
    }
}

pub(crate) fn event_id(number: u32) -> String {
    format!("event-{number:05}")
}

/// Each of these numbers is stored, once and as it was published, and nothing else is.
pub(crate) fn assert_stored(listener: &Program, numbers: std::ops::Range<u32>) {
    let stored = listener.stored();
    assert_eq!(stored.len(), numbers.len());
    for (event, number) in stored.iter().zip(numbers) {
        assert_eq!(event["event_id"], event_id(number));
        assert_eq!(event["payload"], json!({"number": number}));
    }
}
