//! The one command, and what cannot be run.

use std::process::Output;

use crate::scene::Scene;

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn one_command_shows_that_all_listeners_hear_and_one_stores() {
    let scene = Scene::new();
    for (arguments, listeners) in [
        (&[][..], 2),
        (&["--listeners", "5", "--store", "sqlite:records.db", "--database", "sqlite:e.db"], 5),
    ] {
        let output = scene.command(arguments).output().unwrap();
        let table = String::from_utf8(output.stdout.clone()).unwrap();
        assert!(output.status.success(), "{table}\n{}", told(&output));
        assert_eq!(told(&output), "", "nothing is wrong");
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let rows: Vec<_> = table.lines().map(words).filter(|row| row.len() == 4).skip(1).collect();
        assert_eq!(rows.len(), listeners, "{table}");
        let number = |row: &[String], column: usize| row[column].parse::<u32>().unwrap();
        for row in &rows {
            assert_eq!(number(row, 1), 250, "{table}");
            assert_eq!(number(row, 2) + number(row, 3), 250, "{table}");
        }
        assert_eq!(rows.iter().map(|row| number(row, 2)).sum::<u32>(), 200, "{table}");
        assert_eq!(words(table.lines().last().unwrap()), ["database", "200"], "{table}");
    }
}

#[test]
fn what_cannot_run_is_told_in_one_sentence_and_exits_with_2() {
    let scene = Scene::new();
    let listener = ["listener", "--instance-id", "a", "--listen", "127.0.0.1:0"];
    for (arguments, expected) in [
        (&["--store", "oracle"][..], "a store is memory"),
        (&["--database", "mongodb://x"], "a database is sqlite:FILE, postgres://… or mysql://…"),
        (&["producer", "--listen", "127.0.0.1:0", "--journal", "no/such/x.db"], "no/such/x.db"),
        (&["listener"], "--instance-id"),
        (&["listener", "--instance-id", "a b"], "letters, digits"),
        (&[&listener[..], &["--producer", "http://x"]].concat(), "ws://"),
        (&[&listener[..], &["--store", "sqlite:no/such/x.db"]].concat(), "unable to open"),
        (&["--broker", "http://localhost"], "scheme is neither amqp nor amqps"),
    ] {
        let output = scene.command(arguments).output().unwrap();
        let told = told(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {told}");
        assert!(told.contains(expected), "{arguments:?}: {told}");
    }
}
