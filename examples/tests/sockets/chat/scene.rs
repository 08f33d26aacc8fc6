//! Servers of the example, and who talks on them.

use std::process::Command;

use mmate_test_support::{RabbitMq, Redis, ServiceProcess, mariadb_url, postgres_url, unique};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::clients::{Client, Clients};
use crate::files;

/// Servers share a broker of this scene's own: their queues have the names that the example gives them.
pub(crate) struct Scene {
    pub(crate) folder: TempDir,
    pub(crate) broker: RabbitMq,
    pub(crate) clients: Clients,
    options: Vec<String>,
    pub(crate) redis: Option<Redis>,
}

impl Scene {
    pub(crate) fn new(options: &[&str]) -> Self {
        let options = options.iter().map(ToString::to_string).collect();
        let broker = RabbitMq::start().unwrap();
        Self {
            folder: TempDir::new().unwrap(),
            broker,
            clients: Clients::start(),
            options,
            redis: None,
        }
    }

    /// On PostgreSQL, with a schema of its own, and a Redis of its own.
    pub(crate) fn on_postgresql_and_redis(options: &[&str]) -> Self {
        let schema = unique("chat");
        let url = postgres_url();
        let made = psql(&url, &format!("CREATE SCHEMA \"{schema}\""));
        assert!(made, "a schema is made");
        let mark = if url.contains('?') { '&' } else { '?' };
        let database = format!("{url}{mark}options=-csearch_path%3D{schema}");
        let redis = Redis::start().unwrap();
        let places = ["--database", &database, "--store", &redis.url()];
        Self { redis: Some(redis), ..Self::new(&[&places, options].concat()) }
    }

    /// On a MariaDB whose tables the other tests of this example do not use.
    pub(crate) fn on_mariadb(options: &[&str]) -> Self {
        let url = mariadb_url();
        Self::new(&[&["--database", &url, "--store", &url], options].concat())
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chat"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("CHAT_SECRET", "of all servers");
        command
    }

    pub(crate) fn server(&self, name: &str) -> ServiceProcess {
        self.server_with(name, &[])
    }

    pub(crate) fn server_with(&self, name: &str, more: &[&str]) -> ServiceProcess {
        let broker = self.broker.url();
        let mut command = self.command(&["serve", "--broker", &broker]);
        if !more.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command.args(&self.options).args(more);
        ServiceProcess::start(name, self.folder.path(), &mut command)
    }

    /// As if all had happened longer ago than records are kept, where the servers are on files.
    pub(crate) fn forget_records(&self) {
        for file in ["chat.db", "chat-records.db"] {
            let forget = "DELETE FROM processed_messages WHERE status = 'done'";
            assert!(files::execute(&self.folder.path().join(file), forget) > 0, "{file} had none");
        }
    }

    /// A client of that user, on the first of the servers, who has seen nothing.
    pub(crate) fn client(&self, servers: &[&ServiceProcess], name: &str) -> Client {
        self.client_after(servers, name, &json!({}))
    }

    pub(crate) fn client_after(
        &self,
        servers: &[&ServiceProcess],
        name: &str,
        seen: &Value,
    ) -> Client {
        let auth = json!({"token": token(servers[0], name)});
        self.clients.client(servers, &auth, "message", seen).connected()
    }
}

fn psql(url: &str, statement: &str) -> bool {
    let ended = Command::new("psql").args([url, "-qc", statement]).status();
    ended.unwrap().success()
}

pub(crate) fn token(server: &ServiceProcess, name: &str) -> String {
    let answer = server.post("/sign-in", &json!({"name": name}).to_string());
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    body["token"].as_str().unwrap().to_owned()
}

/// A page that only this user sees.
pub(crate) fn page(server: &ServiceProcess, path: &str, name: &str) -> Value {
    let token = format!("Bearer {}", token(server, name));
    let answer = server.ask(&format!("GET {path}"), &[("Authorization", &token)], "").unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

/// A name of a test's own, where tests share a database.
pub(crate) fn name(name: &str) -> String {
    let own = unique(name);
    own.chars().map(|c| if c == '_' { '-' } else { c }).collect()
}

/// The conversation with somebody.
pub(crate) fn open(client: &Client, with: &str) -> String {
    let answer = client.ask("open", &json!({"with": with}));
    assert_eq!(answer["success"], true, "{answer}");
    answer["conversation"].as_str().unwrap().to_owned()
}

/// A message.
pub(crate) fn text(conversation: &str, id: &str, text: &str) -> Value {
    json!({"conversation": conversation, "messageId": id, "text": text})
}

/// Says something, and returns its number.
pub(crate) fn say(client: &Client, conversation: &str, id: &str) -> i64 {
    let answer = client.ask("send", &text(conversation, id, id));
    assert_eq!(answer["success"], true, "{answer}");
    answer["number"].as_i64().unwrap()
}

/// The numbers of messages, as they were shown.
pub(crate) fn numbers(shown: &[Value]) -> Vec<i64> {
    shown.iter().map(|message| message["number"].as_i64().unwrap()).collect()
}

/// What was said, as it was shown.
pub(crate) fn texts(shown: &[Value]) -> Vec<&str> {
    shown.iter().map(|message| message["said"].as_str().unwrap()).collect()
}
