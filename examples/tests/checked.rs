//! The checker passes a sound handler and convicts a careless one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

fn checked(options: &[&str]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_checked")).args(options).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output, said)
}

#[test]
fn a_handler_that_keeps_to_the_transaction_is_as_promised() {
    let (output, said) = checked(&[]);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("500 duplicates, 5 faults, 500 effects"), "{said}");
    assert!(said.trim_end().ends_with("as promised") && !said.contains("NOT"), "{said}");
}

#[test]
fn a_careless_one_is_convicted_with_the_history_of_a_double() {
    let (output, said) = checked(&["--careless"]);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("NOT AS PROMISED"), "{said}");
    let (_, history) = said.split_once("NOT AS PROMISED").unwrap();
    assert!(history.matches(" effect order-").count() >= 2, "{said}");
}
