use std::{
    fs,
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use mmate_test_support::PostgreSql;

use crate::left_behind::{assert_nothing_is_left, processes, until};

#[test]
fn a_postgresql_answers_and_keeps_what_it_committed_over_a_kill_and_a_stop() {
    let mut postgres = PostgreSql::start().unwrap();
    let url = postgres.url();
    sql(&postgres, "CREATE TABLE kept AS SELECT 42 AS answer");
    postgres.kill();
    postgres.start_again().unwrap();
    assert_eq!(sql(&postgres, "SELECT answer FROM kept"), "42");
    postgres.stop().unwrap();
    postgres.start_again().unwrap();
    assert_eq!(sql(&postgres, "SELECT answer FROM kept"), "42");
    assert_eq!(postgres.url(), url);
}

#[test]
fn a_postgresql_takes_settings() {
    let postgres = PostgreSql::options().config("lock_timeout = 1234ms").start().unwrap();
    assert_eq!(sql(&postgres, "SHOW lock_timeout"), "1234ms");
    assert_eq!(sql(&postgres, "SHOW listen_addresses"), "127.0.0.1");
}

#[test]
fn the_connections_of_a_paused_postgresql_are_silent_until_it_resumes() {
    let postgres = PostgreSql::start().unwrap();
    let mut client = Command::new("psql")
        .args(["--no-psqlrc", "--tuples-only", "--no-align", &postgres.url()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut questions = client.stdin.take().unwrap();
    let (sender, answers) = mpsc::channel();
    let lines = BufReader::new(client.stdout.take().unwrap()).lines();
    thread::spawn(move || lines.for_each(|line| sender.send(line.unwrap()).unwrap()));
    let long = Duration::from_secs(30);

    questions.write_all(b"SELECT 'before';\n").unwrap();
    assert_eq!(answers.recv_timeout(long).unwrap(), "before");
    postgres.pause();
    questions.write_all(b"SELECT 'meanwhile';\n").unwrap();
    answers.recv_timeout(Duration::from_millis(300)).unwrap_err();
    postgres.resume();
    assert_eq!(answers.recv_timeout(long).unwrap(), "meanwhile");

    postgres.pause();
    let folder = postgres.folder().to_owned();
    drop(postgres);
    assert_nothing_is_left(&folder);
    drop(questions);
    client.wait().unwrap();
}

#[test]
fn a_dropped_postgresql_leaves_nothing() {
    let postgres = PostgreSql::start().unwrap();
    let folder = postgres.folder().to_owned();
    let segment = shared_memory(&postgres);
    assert!(is_there(&segment));
    // A connection's process leaves the server's process group.
    let mut client = Command::new("psql")
        .args([&postgres.url(), "-c", "SELECT pg_sleep(1000)"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the client is connected", || {
        sql(
            &postgres,
            "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(1000)'",
        ) == "1"
    });
    assert_ne!(processes(&folder), Vec::<String>::new());
    drop(postgres);
    assert_nothing_is_left(&folder);
    assert!(!is_there(&segment));
    assert!(!client.wait().unwrap().success());
}

#[test]
fn a_killed_postgresql_leaves_nothing() {
    let mut postgres = PostgreSql::start().unwrap();
    let folder = postgres.folder().to_owned();
    let segment = shared_memory(&postgres);
    postgres.kill();
    assert!(!is_there(&segment));
    drop(postgres);
    assert_nothing_is_left(&folder);
}

fn sql(postgres: &PostgreSql, statement: &str) -> String {
    let output = Command::new("psql")
        .args(["--no-psqlrc", "--tuples-only", "--no-align", "-c", statement, &postgres.url()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The id of the System V segment that a server holds.
fn shared_memory(postgres: &PostgreSql) -> String {
    let lock_file = fs::read_to_string(postgres.folder().join("data/postmaster.pid")).unwrap();
    lock_file.lines().nth(6).unwrap().split_whitespace().nth(1).unwrap().to_owned()
}

fn is_there(segment: &str) -> bool {
    let segments = fs::read_to_string("/proc/sysvipc/shm").unwrap();
    segments.lines().any(|line| line.split_whitespace().nth(1) == Some(segment))
}
