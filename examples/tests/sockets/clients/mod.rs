//! The ordinary clients of Socket.IO, in a process of Node.js that is told what they do.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;

use mmate_test_support::{ServiceProcess, until};
use serde_json::{Value, json};

/// A process with any number of clients. It ends with the test.
pub(crate) struct Clients {
    child: Child,
    told: Arc<Told>,
}

struct Told {
    orders: Mutex<ChildStdin>,
    last: AtomicU64,
    heard: Mutex<HashMap<u64, Heard>>,
}

/// What was heard of a client.
#[derive(Default)]
struct Heard {
    is_connected: bool,
    refused: Option<String>,
    received: Vec<Value>,
    answers: HashMap<u64, Value>,
}

/// One of them.
pub(crate) struct Client {
    number: u64,
    told: Arc<Told>,
}

/// An answer that is on its way.
pub(crate) struct Asked<'a> {
    number: u64,
    client: &'a Client,
}

impl Clients {
    pub(crate) fn start() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sockets/clients");
        assert!(
            folder.join("node_modules/socket.io-client").is_dir(),
            "the clients are missing: `npm ci` in {} installs them, and `scripts/test` does so by itself",
            folder.display()
        );
        let mut command = Command::new("node");
        command.arg(folder.join("clients.mjs")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("node did not start ({error}); `apt-get install nodejs npm` installs it")
        });
        let told = Arc::new(Told {
            orders: Mutex::new(child.stdin.take().unwrap()),
            last: AtomicU64::new(0),
            heard: Mutex::default(),
        });
        let (lines, hears) = (BufReader::new(child.stdout.take().unwrap()), Arc::clone(&told));
        thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                hears.hear(&serde_json::from_str(&line).unwrap());
            }
        });
        Self { child, told }
    }

    /// A client that tries these servers one after the other, and that is shown `event`s after a number.
    pub(crate) fn client(
        &self,
        servers: &[&ServiceProcess],
        auth: &Value,
        event: &str,
        after: &Value,
    ) -> Client {
        let urls = servers.iter().map(|server| format!("http://{}", server.address()));
        self.client_at(&urls.collect::<Vec<_>>().iter().collect::<Vec<_>>(), auth, event, after)
    }

    /// The same by URLs.
    pub(crate) fn client_at(
        &self,
        servers: &[&String],
        auth: &Value,
        event: &str,
        after: &Value,
    ) -> Client {
        let number = self.told.next();
        let client = Client { number, told: Arc::clone(&self.told) };
        // With one server there is nothing to be tried again elsewhere: the test sees each answer as it came.
        let retries = if servers.len() > 1 { json!(1_000) } else { Value::Null };
        let order = json!({
            "order": "connect", "client": number, "servers": servers, "auth": auth, "after": after,
            "event": event, "retries": retries,
        });
        self.told.say(&order);
        client
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Told {
    fn next(&self) -> u64 {
        self.last.fetch_add(1, Relaxed)
    }

    fn say(&self, order: &Value) {
        writeln!(self.orders.lock().unwrap(), "{order}").unwrap();
    }

    fn hear(&self, line: &Value) {
        let client = line["client"].as_u64().unwrap();
        let mut all = self.heard.lock().unwrap();
        let heard = all.entry(client).or_default();
        if let Some(reason) = line["refused"].as_str() {
            heard.refused = Some(reason.to_owned());
        } else if line["connected"] == true {
            heard.is_connected = true;
        } else if let Some(number) = line["number"].as_u64() {
            heard.answers.insert(number, line["answer"].clone());
        } else {
            heard.received.push(line["received"].clone());
        }
    }

    fn of<T>(&self, client: u64, ask: impl FnOnce(&mut Heard) -> T) -> T {
        ask(self.heard.lock().unwrap().entry(client).or_default())
    }
}

impl Client {
    /// Waits until a server has taken it.
    pub(crate) fn connected(self) -> Self {
        until("a client to be connected", || self.told.of(self.number, |heard| heard.is_connected));
        self
    }

    /// Waits until a server has refused it, and says why.
    pub(crate) fn refusal(&self) -> String {
        let refused = || self.told.of(self.number, |heard| heard.refused.clone());
        until("a client to be refused", || refused().is_some());
        refused().unwrap()
    }

    pub(crate) fn begin(&self, event: &str, data: &Value) -> Asked<'_> {
        let number = self.told.next();
        let order = json!({
            "order": "ask", "client": self.number, "number": number, "event": event, "data": data,
        });
        self.told.say(&order);
        Asked { number, client: self }
    }

    pub(crate) fn ask(&self, event: &str, data: &Value) -> Value {
        self.begin(event, data).answer()
    }

    /// What it was shown so far.
    pub(crate) fn received(&self) -> Vec<Value> {
        self.told.of(self.number, |heard| heard.received.clone())
    }

    /// Waits until it was shown so many.
    pub(crate) fn receives(&self, most: usize) -> Vec<Value> {
        until("what a client is shown", || {
            self.told.of(self.number, |heard| heard.received.len()) >= most
        });
        self.received()
    }

    pub(crate) fn close(self) {
        self.told.say(&json!({"order": "close", "client": self.number}));
    }
}

impl Asked<'_> {
    pub(crate) fn is_answered(&self) -> bool {
        self.client.told.of(self.client.number, |heard| heard.answers.contains_key(&self.number))
    }

    pub(crate) fn answer(self) -> Value {
        until("an answer", || self.is_answered());
        self.client.told.of(self.client.number, |heard| heard.answers.remove(&self.number).unwrap())
    }
}
