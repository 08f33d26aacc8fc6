//! Processes of the example, and what they are asked over HTTP.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(90);

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
        let url = format!("ws://{}/listen", producer.address);
        let mut command = self.command(&["listener", "--listen", "127.0.0.1:0"]);
        command.env("INSTANCE_ID", name).args(["--producer", &url]);
        Program::start(self, name, command.args(&self.listener).args(more))
    }
}

/// A process of the example, killed at the end.
pub(crate) struct Program {
    child: Child,
    pub(crate) address: String,
    log: PathBuf,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Program {
    fn start(scene: &Scene, name: &str, command: &mut Command) -> Self {
        let log = scene.path(&format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(file).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split(['/', ' ']).nth(2).map(str::to_owned);
        let told = || std::fs::read_to_string(&log).unwrap();
        let address = address.unwrap_or_else(|| panic!("{name} did not start: {}", told()));
        Self { child, address, log }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it as an orchestrator does; the exit code.
    pub(crate) fn terminate(mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }

    fn try_ask(&self, request: &str) -> std::io::Result<Answer> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Ok(Answer { status, body: body.to_owned() })
    }

    pub(crate) fn page(&self, path: &str) -> Answer {
        self.try_ask(&format!("GET {path} HTTP/1.0\r\n\r\n")).unwrap()
    }

    pub(crate) fn post(&self, body: &str) -> Answer {
        let length = body.len();
        let request = format!(
            "POST /publish HTTP/1.0\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        );
        self.try_ask(&request).unwrap()
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

    /// A number on the page of metrics, added up over other labels; 0 where it is not there.
    pub(crate) fn metric(&self, name: &str, labels: &str) -> u64 {
        let page = self.page("/metrics").body;
        let lines = page.lines().filter(|line| line.starts_with(name) && line.contains(labels));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
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
            let page = page.json();
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
        self.page("/health").json()["connections"][name]["status"].clone()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("== {}\n{}", self.log.display(), self.log());
        }
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

pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "waited too long for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
