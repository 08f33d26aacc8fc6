//! The example `payments`: orders that are charged once, whatever is killed.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use mmate_test_support::{MariaDb, PostgreSql, RabbitMq, Redis};

fn payments(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_payments"));
    command.args(arguments).env_remove("RUST_LOG");
    command
}

/// A process of it, killed at the end.
struct Program {
    child: Child,
    /// The first line that it printed.
    line: String,
}

impl Program {
    fn start(arguments: &[&str]) -> Self {
        let mut child = payments(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, line: line.trim().to_owned() }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

/// S1, S25: at a provider that fails and answers too late, in one process without any server.
#[test]
fn the_demonstration_charges_each_order_once() {
    let manners = ["--takes", "20", "--fails", "0.2", "--late", "0.1"];
    let shown = payments(&["--orders", "30"]).args(manners).output().unwrap();
    let said = text(&shown);
    assert!(shown.status.success(), "{said}");
    assert!(said.contains("published 46 messages about 30 orders"), "{said}");
    for row in ["charges", "payments", "receipts"] {
        assert!(said.contains(&format!("{row:<10} {:>7} {:>7}\n", 30, 30)), "{said}");
    }
}

/// S1, S25
#[test]
fn the_demonstration_charges_each_order_once_on_mariadb() {
    let database = MariaDb::start().unwrap();
    let manners = ["--takes", "20", "--fails", "0.2", "--late", "0.1"];
    let places = ["--database", &database.url(), "--locks", &database.url()];
    let shown = payments(&["--orders", "60"]).args(manners).args(places).output().unwrap();
    assert!(shown.status.success(), "{}", text(&shown));
}

/// A check that cannot fail would show nothing.
#[test]
fn the_check_tells_of_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let database = format!("sqlite:{}", folder.path().join("payments.db").display());
    let provider = Program::start(&["provider", "--listen", "127.0.0.1:0"]);
    let check = ["check", "--database", &database, "--provider", &provider.line, "--orders", "1"];
    let checked = payments(&check).output().unwrap();
    assert_eq!(checked.status.code(), Some(1), "{}", text(&checked));
    assert!(text(&checked).contains(&format!("{:<10} {:>7} {:>7}\n", "receipts", 0, 0)));
}

/// S1, S12, S25: on RabbitMQ, PostgreSQL and Redis, with services that are killed in the middle of charges.
#[test]
fn no_customer_is_charged_twice_though_services_are_killed() {
    const ORDERS: &str = "150";
    const KILLS: usize = 8;
    let (rabbitmq, database) = (RabbitMq::start().unwrap(), PostgreSql::start().unwrap());
    let redis = Redis::start().unwrap();
    let (broker, database, redis) = (rabbitmq.url(), database.url(), redis.url());
    let provider = ["provider", "--listen", "127.0.0.1:0", "--takes", "200"];
    let provider = Program::start(&provider);
    let service = || {
        let mut arguments = vec!["service", "--broker", &broker, "--database", &database];
        arguments.extend(["--locks", &redis, "--provider", &provider.line]);
        arguments.extend(["--lease", "2000", "--concurrency", "4"]);
        Program::start(&arguments)
    };
    let check = || {
        let check = ["check", "--database", &database, "--provider", &provider.line];
        payments(&check).args(["--orders", ORDERS]).output().unwrap()
    };
    let charges = || {
        let said = text(&check());
        let row = said.lines().find(|line| line.starts_with("charges"));
        row.and_then(|row| row.split_whitespace().nth(2)?.parse::<usize>().ok()).unwrap_or_default()
    };
    let until = |what: &str, mut is_so: Box<dyn FnMut() -> bool + '_>| {
        let since = Instant::now();
        while !is_so() {
            let said = text(&check());
            assert!(since.elapsed() < Duration::from_secs(120), "waiting for {what}: {said}");
            thread::sleep(Duration::from_millis(100));
        }
    };

    let mut services = [service(), service(), service()];
    let place = ["publish", "--broker", &broker, "--orders", ORDERS];
    let placed = payments(&place).output().unwrap();
    assert!(placed.status.success(), "{}", text(&placed));
    for kill in 0..KILLS {
        let due = (kill + 1) * 12;
        until("more charges", Box::new(|| charges() >= due));
        let victim = &mut services[kill % 3];
        victim.kill();
        *victim = service();
    }
    until("all receipts", Box::new(|| check().status.success()));
    // What was told of once more, or was in the hands of a service that was killed, changes nothing any more. The broker
    // counts what is in its queues every five seconds.
    let is_empty = || {
        let list = ["-q", "list_queues", "--no-table-headers", "messages"];
        rabbitmq.ctl(&list).unwrap().lines().all(|count| count.trim() == "0")
    };
    let mut empty_since = None;
    until(
        "empty queues",
        Box::new(|| {
            empty_since = is_empty().then(|| empty_since.unwrap_or_else(Instant::now));
            empty_since.is_some_and(|since| since.elapsed() > Duration::from_secs(6))
        }),
    );
    let checked = check();
    assert!(checked.status.success(), "{}", text(&checked));
}
