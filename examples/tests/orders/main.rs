//! The main job, run as a user runs it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod servers;
mod tour;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use mmate_test_support::{RabbitMq, amqp_url};
use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection as _, SqliteConnection};
use tempfile::TempDir;

/// The keys of `--json`, and no others.
const KEYS: [&str; 11] = [
    "published",
    "fetched",
    "succeeded",
    "duplicates",
    "retried",
    "deferred",
    "dead_lettered",
    "conflicts",
    "effects",
    "lost",
    "double",
];

/// A folder to run in, so that runs do not share a database.
struct Shop {
    folder: TempDir,
}

impl Shop {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The first lines of the events that come with the example.
    fn some_events(&self, lines: usize) -> PathBuf {
        let all = include_str!("../../data/orders.jsonl");
        let path = self.path("events.jsonl");
        let some: String = all.split_inclusive('\n').take(lines).collect();
        std::fs::write(&path, some).unwrap();
        path
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orders"));
        command.args(arguments).current_dir(self.folder.path()).env_remove("RUST_LOG");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
}

/// The JSON result, with exactly the promised keys; its standard error on failure.
fn result(output: &Output) -> Value {
    let result: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}\n{}", told(output)));
    let mut keys: Vec<_> = result.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = KEYS.to_vec();
    keys.sort_unstable();
    expected.sort_unstable();
    assert_eq!(keys, expected);
    result
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn number(result: &Value, key: &str) -> u64 {
    result[key].as_u64().unwrap()
}

/// Nothing lost, nothing doubled, and the overlap suppressed.
fn assert_clean(output: &Output) -> Value {
    let result = result(output);
    assert_eq!(number(&result, "lost"), 0, "{result}\n{}", told(output));
    assert_eq!(number(&result, "double"), 0, "{result}\n{}", told(output));
    assert!(number(&result, "duplicates") > 0, "{result}");
    assert!(output.status.success(), "{result}\n{}", told(output));
    result
}

/// S31: one id through overlapping subscriptions into one scope takes effect once.
#[test]
fn the_shipped_events_take_effect_once_and_a_second_run_suppresses_everything() {
    let shop = Shop::new();
    let first = assert_clean(&shop.run(&["--json"]));
    assert!(number(&first, "published") > 10_000, "{first}");
    assert!(number(&first, "effects") > 0);

    let second = assert_clean(&shop.run(&["--json"]));
    assert_eq!(second["effects"], first["effects"]);
    assert_eq!(number(&second, "succeeded"), 0, "{second}");

    let events = shop.some_events(500);
    let fresh = ["--json", "--fresh", "--input", events.to_str().unwrap()];
    let fresh = assert_clean(&shop.run(&fresh));
    assert!(number(&fresh, "effects") < 500 && number(&fresh, "succeeded") > 0, "{fresh}");
}

#[test]
fn without_a_strategy_effects_are_doubled_and_it_says_so() {
    let shop = Shop::new();
    let events = shop.some_events(1_000);
    let output = shop.run(&["--json", "--strategy", "none", "--input", events.to_str().unwrap()]);
    let result = result(&output);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(number(&result, "double") > 0, "{result}");
    assert_eq!(number(&result, "lost"), 0, "{result}");
    assert!(told(&output).contains("took effect more than once"), "{}", told(&output));
}

#[test]
fn every_strategy_and_store_is_clean_under_chaos_with_four_instances() {
    let shop = Shop::new();
    let events = shop.some_events(1_000);
    for choice in [
        ["--strategy", "transactional", "--store", "sqlite:a.db"],
        ["--strategy", "grouped", "--store", "sqlite:g.db"],
        ["--strategy", "tracked", "--store", "sqlite:b.db"],
        ["--strategy", "tracked", "--store", "memory"],
    ] {
        let mut arguments = vec!["--json", "--chaos", "--instances", "4", "--input"];
        arguments.push(events.to_str().unwrap());
        arguments.extend(choice);
        assert_clean(&shop.run(&arguments));
    }
}

/// On a broker of its own, since queue names are those of the example.
#[test]
fn on_rabbitmq_it_is_clean_also_under_chaos_with_four_instances() {
    let broker = RabbitMq::start().unwrap();
    let shop = Shop::new();
    let events = shop.some_events(1_500);
    let (events, url) = (events.to_str().unwrap(), broker.url());
    assert_clean(&shop.run(&["--json", "--broker", &url, "--input", events]));
    let chaos = ["--json", "--fresh", "--broker", &url, "--input", events, "--chaos"];
    assert_clean(&shop.run(&[&chaos[..], &["--instances", "4"]].concat()));
    let tracked = ["--json", "--store", "memory", "--strategy", "tracked", "--input", events];
    assert_clean(&shop.run(&[&tracked[..], &["--broker", &url]].concat()));
}

/// F16
#[test]
fn a_broker_that_is_killed_and_restarted_in_the_middle_loses_and_doubles_nothing() {
    let mut broker = RabbitMq::start().unwrap();
    let shop = Shop::new();
    let events = shop.some_events(4_000);
    let (events, url) = (events.to_str().unwrap(), broker.url());
    let running = Running(
        shop.command(&[
            "--json",
            "--broker",
            &url,
            "--input",
            events,
            "--instances",
            "2",
            "--chaos",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap(),
    );
    wait_for("some effects", || effects(&shop.path("orders.db")) > 500);
    broker.kill();
    broker.start_again().unwrap();
    let effects_before = effects(&shop.path("orders.db"));
    let result = assert_clean(&running.output());
    assert!(
        number(&result, "effects") > effects_before.unsigned_abs(),
        "it was done before the kill: {result}"
    );
}

/// S1, S12: processes of their own, which share a broker and a database file. Each publishes the
/// same events, so every message is there four times over, and one process is killed at work.
#[test]
fn four_processes_of_which_one_is_killed_have_one_effect_for_each_message() {
    let broker = RabbitMq::start().unwrap();
    let shop = Shop::new();
    let events = shop.some_events(600);
    let (events, url) = (events.to_str().unwrap(), broker.url());
    let start = || {
        Running(
            shop.command(&["--json", "--broker", &url, "--input", events, "--chaos"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        )
    };
    let victim = start();
    wait_for("some effects", || effects(&shop.path("orders.db")) > 20);
    let others = [start(), start(), start()];
    drop(victim);
    let of_each = others.map(|running| assert_clean(&running.output()));
    assert!(of_each.iter().all(|result| result["effects"] == of_each[0]["effects"]), "{of_each:?}");
}

#[test]
fn a_malformed_line_is_told_with_its_number_and_the_rest_goes_on() {
    let shop = Shop::new();
    let event = |id: &str| {
        format!(
            r#"{{"id":"{id}","topic":"order.created.us-west","type":"OrderCreated","payload":{{"orderId":"O-{id}","version":1}}}}"#
        )
    };
    let lines = format!(
        "{}\nnonsense\n\n{{\"id\":\"x\",\"topic\":\"a.*.b\",\"type\":\"T\",\"payload\":1}}\n\
         {{\"id\":\"\",\"topic\":\"a.b.c\",\"type\":\"T\",\"payload\":1}}\n{}\n{}",
        event("1"),
        event("2"),
        event("wrong").replace("\"O-wrong\"", "7"),
    );
    let mut child = shop
        .command(&["--json", "--input", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let result = assert_clean(&output);
    assert_eq!(number(&result, "published"), 3);
    assert_eq!(number(&result, "effects"), 2);
    // Of the wrong shape: dead-lettered once for each of the three overlapping queues.
    assert_eq!(number(&result, "dead_lettered"), 3);
    let told = told(&output);
    for line in
        ["line 2 is skipped: ", "line 4 is skipped: ", "line 5 is skipped: ", "lines skipped: 3"]
    {
        assert!(told.contains(line), "{told}");
    }
}

#[test]
fn what_cannot_run_is_told_in_one_sentence_and_exits_with_2() {
    let shop = Shop::new();
    let url = amqp_url();
    let (_, host) = url.split_once('@').unwrap();
    let wrong_password = format!("amqp://guest:hunter2@{host}");
    for (arguments, expected) in [
        (&["--input", "nowhere.jsonl"][..], "cannot read nowhere.jsonl"),
        (&["--store", "oracle"], "a store is `memory`, `sqlite:PATH`"),
        (&["--strategy", "grouped", "--store", "redis://127.0.0.1:1/"], "use --store sqlite:PATH"),
        (&["--store", "postgres://nobody@127.0.0.1:1/x"], "cannot use the database"),
        (&["--store", "memory"], "use --store sqlite:PATH"),
        (&["--store", "sqlite:no/such/folder/x.db"], "no/such/folder/x.db"),
        (&["--broker", "http://localhost"], "scheme is neither amqp nor amqps"),
        (&["--broker", &wrong_password], "refuses the credentials"),
    ] {
        let output = shop.run(arguments);
        let told = told(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {told}");
        assert!(told.contains(expected), "{arguments:?}: {told}");
        assert!(!told.contains("hunter2"), "{told}");
    }
}

#[test]
fn an_unreachable_broker_is_told_and_tried_again_until_ctrl_c() {
    let shop = Shop::new();
    // Port 1 of the loopback address: nobody listens there.
    let mut running = Running(
        shop.command(&["--broker", "amqp://guest:guest@127.0.0.1:1/%2f"])
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(shop.path("log")).unwrap())
            .spawn()
            .unwrap(),
    );
    let log = || std::fs::read_to_string(shop.path("log")).unwrap();
    wait_for("two attempts", || log().matches("127.0.0.1:1").count() >= 2);
    assert!(running.0.try_wait().unwrap().is_none(), "it gave up: {}", log());
    running.interrupt();
    assert_eq!(running.output().status.code(), Some(130));
    assert!(log().contains("interrupted"), "{}", log());
}

/// A child that does not outlive its test.
struct Running(Child);

impl Running {
    fn interrupt(&self) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    }

    fn output(mut self) -> Output {
        let mut output =
            Output { status: Default::default(), stdout: Vec::new(), stderr: Vec::new() };
        let stderr = self.0.stderr.take();
        let told = std::thread::spawn(move || {
            let mut told = Vec::new();
            stderr.map(|mut pipe| std::io::Read::read_to_end(&mut pipe, &mut told));
            told
        });
        if let Some(mut pipe) = self.0.stdout.take() {
            std::io::Read::read_to_end(&mut pipe, &mut output.stdout).unwrap();
        }
        output.status = self.0.wait().unwrap();
        output.stderr = told.join().unwrap();
        output
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Rows in the effect table, read beside the running example; none while there is no table.
fn effects(database: &Path) -> i64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime
        .block_on(async {
            let options = SqliteConnectOptions::new().filename(database).read_only(true);
            let mut connection = SqliteConnection::connect_with(&options).await?;
            sqlx::query_scalar("SELECT count(*) FROM shop_effects").fetch_one(&mut connection).await
        })
        .unwrap_or(0)
}

fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !there() {
        assert!(Instant::now() < limit, "waited a minute for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_topology_is_printed_and_nothing_is_connected_to() {
    let shop = Shop::new();
    // Nobody listens there.
    let nowhere = ["--broker", "amqp://alice:s3cret@127.0.0.1:1"];
    let text = shop.run(&[&nowhere[..], &["--print-topology"]].concat());
    assert!(text.status.success(), "{}", told(&text));
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.starts_with("service shop\n") && text.contains("x-delivery-limit = 20"), "{text}");
    assert!(!text.contains("s3cret"));
    let chart = shop.run(&[&nowhere[..], &["--print-topology", "mermaid"]].concat());
    assert!(String::from_utf8(chart.stdout).unwrap().starts_with("flowchart LR\n"));
    assert!(!shop.path("orders.db").exists());
}
