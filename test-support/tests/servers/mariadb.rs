use std::process::Command;

use mmate_test_support::MariaDb;

use crate::left_behind::{assert_nothing_is_left, processes};

#[test]
fn a_mariadb_answers_and_keeps_what_it_committed_over_a_kill_and_a_stop() {
    let mut mariadb = MariaDb::start().unwrap();
    let url = mariadb.url();
    sql(&mariadb, "CREATE TABLE kept (answer INT); INSERT INTO kept VALUES (42)");
    mariadb.kill();
    mariadb.start_again().unwrap();
    assert_eq!(sql(&mariadb, "SELECT answer FROM kept"), "42");
    mariadb.stop().unwrap();
    mariadb.start_again().unwrap();
    assert_eq!(sql(&mariadb, "SELECT answer FROM kept"), "42");
    assert_eq!(mariadb.url(), url);
}

#[test]
fn a_mariadb_takes_settings_and_leaves_nothing() {
    let mariadb = MariaDb::options().config("innodb_lock_wait_timeout = 7").start().unwrap();
    assert_eq!(sql(&mariadb, "SELECT @@innodb_lock_wait_timeout, @@bind_address"), "7\t127.0.0.1");
    let folder = mariadb.folder().to_owned();
    assert_ne!(processes(&folder), Vec::<String>::new());
    drop(mariadb);
    assert_nothing_is_left(&folder);
}

fn sql(mariadb: &MariaDb, statements: &str) -> String {
    let output = Command::new("mariadb")
        .args([
            "--no-defaults",
            "--host=127.0.0.1",
            "--user=root",
            "--skip-column-names",
            "--batch",
        ])
        .args([&format!("--port={}", mariadb.port()), "-e", statements, "mmate"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
