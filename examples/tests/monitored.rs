//! The example `monitored`, asked over HTTP as an orchestrator and Prometheus would.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mmate_test_support::RabbitMq;

/// The program, killed at the end.
struct Program {
    child: Child,
    address: String,
}

impl Program {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_monitored"))
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split(['/', ' ']).nth(2).unwrap().to_owned();
        Self { child, address }
    }

    /// The status code and the body of a page.
    fn page(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn until(&self, what: &str, path: &str, is_so: impl Fn(u16, &str) -> bool) -> String {
        let begin = Instant::now();
        loop {
            let (code, body) = self.page(path);
            if is_so(code, &body) {
                return body;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "{what}: {code} {body}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn health_and_metrics_are_served() {
    let program = Program::start(&[]);
    assert_eq!(
        program.page("/health"),
        (
            200,
            r#"{"status":"up","service":"ticker","connections":{"broker":{"status":"up"}},"#
                .to_owned()
                + r#""subscriptions":{"count":{"status":"up"}}}"#
        )
    );
    let fetched = r#"mmate_fetched_total{service="ticker",subscription="count"} 1"#;
    let metrics = program.until("a tick", "/metrics", |_, page| page.contains(fetched));
    for line in [
        "# HELP mmate_fetched_total Messages taken up for handling.",
        "# TYPE mmate_handling_seconds histogram",
        r#"mmate_handling_seconds_count{service="ticker",subscription="count"} "#,
        r#"mmate_in_flight{service="ticker",subscription="count"} "#,
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
}

#[test]
fn a_broker_that_is_away_shows_and_its_return_too() {
    let mut broker = RabbitMq::start().unwrap();
    let program = Program::start(&["--broker", &broker.url()]);
    assert_eq!(program.page("/health").0, 200);
    broker.kill();
    let body = program.until("the broker is away", "/health", |code, _| code == 503);
    assert!(
        body.contains(r#""status":"down","reason":"connection consume: not connected for"#),
        "{body}"
    );
    assert!(!body.contains("guest:"), "no credentials: {body}");
    let gone = r#"mmate_amqp_connected{role="publish"} 0"#;
    program.until("the metric", "/metrics", |_, page| page.contains(gone));
    broker.start_again().unwrap();
    program.until("the broker is back", "/health", |code, _| code == 200);
}
