//! Servers of the example, and who uses them.

use std::process::Command;

use mmate_test_support::ServiceProcess;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::clients::{Client, Clients};

pub(crate) struct Scene {
    pub(crate) folder: TempDir,
    clients: Clients,
    options: Vec<String>,
}

impl Scene {
    /// With these options beside what the example has by default: SQLite files.
    pub(crate) fn new(options: &[&str]) -> Self {
        let options = options.iter().map(ToString::to_string).collect();
        Self { folder: TempDir::new().unwrap(), clients: Clients::start(), options }
    }

    pub(crate) fn server(&self, name: &str) -> ServiceProcess {
        let mut command = Command::new(env!("CARGO_BIN_EXE_photos"));
        command.args(["serve", "--listen", "127.0.0.1:0"]).args(&self.options);
        command.current_dir(self.folder.path()).env("PHOTOS_SECRET", "of all servers");
        ServiceProcess::start(name, self.folder.path(), &mut command)
    }

    /// A client that is signed in, and has seen everything up to a number.
    pub(crate) fn client_after(&self, server: &ServiceProcess, name: &str, after: i64) -> Client {
        let auth = json!({"token": token(server, name)});
        self.clients.client(&[server], &auth, "photo", &json!(after)).connected()
    }

    pub(crate) fn client(&self, server: &ServiceProcess, name: &str) -> Client {
        self.client_after(server, name, 0)
    }

    pub(crate) fn stranger(&self, server: &ServiceProcess, auth: &Value) -> Client {
        self.clients.client(&[server], auth, "photo", &json!(0))
    }

    pub(crate) fn files(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("photos")).unwrap().count()
    }
}

pub(crate) fn token(server: &ServiceProcess, name: &str) -> String {
    let answer = server.post("/sign-in", &json!({"name": name}).to_string());
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    body["token"].as_str().unwrap().to_owned()
}

/// A GIF of one dot, and another one for another number.
pub(crate) fn photo(id: &str, recipient: &str, number: u8) -> Value {
    // "GIF89a", one dot, and the number.
    let content = format!("R0lGODlhAQABAAAAACwAAAAAAQABAAACADv{}", char::from(b'A' + number));
    json!({"messageId": id, "recipient": recipient, "content": content})
}
