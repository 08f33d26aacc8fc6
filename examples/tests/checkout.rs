//! The example `checkout`, asked over HTTP as clients would that repeat themselves.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// The program, killed at the end.
struct Program {
    child: Child,
    address: String,
}

/// A response: its status, its head in lower case, its body.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn is_replayed(&self) -> bool {
        self.head.contains("\r\nidempotency-replayed: true")
    }

    fn asks_to_come_again(&self) -> bool {
        self.head.contains("\r\nretry-after: 1")
    }
}

/// What comes until the end; nothing of it if the connection is shut.
fn answer(stream: &mut TcpStream) -> Answer {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).map_or(0, |status| status.parse().unwrap());
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

impl Program {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_checkout"))
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

    fn on_file(file: &Path, bank_takes: &str) -> Self {
        let file = file.to_str().unwrap();
        Self::start(&["--records", file, "--bank-takes", bank_takes, "--lease", "2000"])
    }

    fn send(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    fn ask(&self, request: &str) -> Answer {
        answer(&mut self.send(request))
    }

    fn pay(&self, key: &str, cents: u64) -> Answer {
        self.ask(&payment(&format!("Idempotency-Key: {key}\r\n"), cents))
    }

    /// Comes again for as long as it is told to.
    fn pay_patiently(&self, key: &str, cents: u64) -> Answer {
        let began = Instant::now();
        loop {
            let answer = self.pay(key, cents);
            if answer.status != 409 {
                return answer;
            }
            assert!(answer.asks_to_come_again(), "{answer:?}");
            assert!(began.elapsed() < Duration::from_secs(60), "{answer:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn charged(&self) -> serde_json::Value {
        serde_json::from_str(&self.ask("GET /accounts HTTP/1.0\r\n\r\n").body).unwrap()
    }
}

/// A payment of ada's.
fn payment(headers: &str, cents: u64) -> String {
    let body = format!(r#"{{"account":"ada","cents":{cents}}}"#);
    format!(
        "POST /payments HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         {headers}\r\n{body}",
        body.len()
    )
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// S52
#[test]
fn a_repeated_request_gets_the_first_response_and_is_charged_once() {
    let program = Program::start(&["--bank-takes", "1"]);
    let first = program.pay("\"a\"", 995);
    assert_eq!((first.status, first.body.as_str()), (201, r#"{"charge":1,"cents":995}"#));
    assert!(!first.is_replayed());
    // With and without quotation marks it is the same key.
    for key in ["\"a\"", "a"] {
        let again = program.pay(key, 995);
        assert_eq!((again.status, &again.body), (201, &first.body));
        assert!(again.is_replayed() && again.head.contains("content-type: application/json"));
    }
    let second = program.pay("\"b\"", 995);
    assert_eq!((second.status, second.body.as_str()), (201, r#"{"charge":2,"cents":995}"#));
    assert_eq!(program.charged(), serde_json::json!({"ada": [995, 995]}));
}

/// S33
#[test]
fn a_key_that_was_used_for_another_request_is_refused() {
    let program = Program::start(&["--bank-takes", "1"]);
    assert_eq!(program.pay("a", 1).status, 201);
    let other = program.pay("a", 2);
    assert_eq!(other.status, 422);
    assert!(other.head.contains("content-type: application/problem+json"), "{other:?}");
    assert_eq!(program.charged(), serde_json::json!({"ada": [1]}));
}

#[test]
fn a_request_without_a_usable_key_is_refused() {
    let program = Program::start(&["--bank-takes", "1"]);
    assert_eq!(program.ask(&payment("", 1)).status, 400);
    for key in ["", "\"a", "a\"b", &"x".repeat(256)] {
        assert_eq!(program.pay(key, 1).status, 400, "{key:?}");
    }
    assert_eq!(program.charged(), serde_json::json!({}));
}

/// S31
#[test]
fn a_key_is_its_clients_own() {
    let program = Program::start(&["--bank-takes", "1"]);
    let of = |client: &str| {
        let headers = format!("Idempotency-Key: a\r\nAuthorization: Bearer {client}\r\n");
        program.ask(&payment(&headers, 1))
    };
    for client in ["one", "another"] {
        let answer = of(client);
        assert!(answer.status == 201 && !answer.is_replayed(), "{answer:?}");
    }
    assert!(of("one").is_replayed());
}

/// S3: who comes while it is handled is told to come again; the client that hung up is charged.
#[test]
fn a_request_that_is_being_handled_is_finished_though_its_client_hangs_up() {
    let program = Program::start(&["--bank-takes", "1500"]);
    // Of two at once one is refused, and so the other one is being handled.
    let request = payment("Idempotency-Key: a\r\n", 995);
    let both = [program.send(&request), program.send(&request)];
    let (read, reads) = mpsc::channel();
    for (number, stream) in both.iter().enumerate() {
        let (mut stream, read) = (stream.try_clone().unwrap(), read.clone());
        thread::spawn(move || read.send((number, answer(&mut stream))));
    }
    let (number, refused) = reads.recv().unwrap();
    assert_eq!(refused.status, 409);
    both[1 - number].shutdown(Shutdown::Both).unwrap();
    let answer = program.pay_patiently("a", 995);
    assert_eq!((answer.status, answer.body.as_str()), (201, r#"{"charge":1,"cents":995}"#));
    assert!(answer.is_replayed(), "it was handled for the one that hung up");
    assert_eq!(program.charged(), serde_json::json!({"ada": [995]}));
}

/// S9, S10: a failure that passes is not kept, a refusal is.
#[test]
fn a_refusal_is_kept_and_a_failure_of_the_server_is_not() {
    let program = Program::start(&["--bank-takes", "1"]);
    for replayed in [false, true] {
        let refused = program.pay("too-much", 1_000_000);
        assert_eq!((refused.status, refused.is_replayed()), (402, replayed));
    }
    for _ in 0..2 {
        let failed = program.pay("no-answer", 0);
        assert_eq!((failed.status, failed.is_replayed()), (502, false));
    }
}

/// S1, S6: on records that two processes share, of which one dies.
#[test]
fn two_processes_on_one_file_charge_once_and_remember_it_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("records.db");
    let programs = [Program::on_file(&file, "1"), Program::on_file(&file, "1")];
    let answers: Vec<_> = thread::scope(|scope| {
        let programs = &programs;
        let ask = |n: usize| scope.spawn(move || programs[n % 2].pay("a", 995));
        let asking: Vec<_> = (0..20).map(ask).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| [201, 409].contains(&answer.status)), "{answers:?}");
    let fresh = answers.iter().filter(|answer| answer.status == 201 && !answer.is_replayed());
    assert_eq!(fresh.count(), 1);
    let charges = |program: &Program| program.charged()["ada"].as_array().map_or(0, Vec::len);
    assert_eq!(programs.iter().map(charges).sum::<usize>(), 1);
    drop(programs);
    let program = Program::on_file(&file, "1");
    let again = program.pay("a", 995);
    assert_eq!((again.status, again.is_replayed()), (201, true));
    assert_eq!(program.charged(), serde_json::json!({}));
}

/// S12, S14: killed in the middle of the work; nothing was charged by then.
#[test]
fn what_a_killed_process_was_at_is_taken_over_by_another_after_its_lease() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("records.db");
    let (dies, lives) = (Program::on_file(&file, "600000"), Program::on_file(&file, "1"));
    let request = payment("Idempotency-Key: a\r\n", 995);
    let both = [dies.send(&request), dies.send(&request)];
    let (read, reads) = mpsc::channel();
    for mut stream in both {
        let read = read.clone();
        thread::spawn(move || read.send(answer(&mut stream)));
    }
    // One of the two is refused, and so the other one is being handled.
    assert_eq!(reads.recv().unwrap().status, 409);
    assert_eq!(lives.pay("a", 995).status, 409);
    let killed = Instant::now();
    drop(dies);
    let answer = lives.pay_patiently("a", 995);
    assert!(answer.status == 201 && !answer.is_replayed(), "{answer:?}");
    // Prolonged at the latest two thirds before its end.
    assert!(killed.elapsed() > Duration::from_millis(500), "{:?}", killed.elapsed());
    assert_eq!(lives.charged(), serde_json::json!({"ada": [995]}));
}
