//! A small soak; `scripts/soak` runs large ones.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// The first six of the soak's own, which need nothing but servers.
const SIX: &str =
    "consumer-kill,network-cut,database-kill,consumer-freeze,sessions-end,broker-kill";

fn soak(folder: &Path) -> Command {
    let mut soak = Command::new(env!("CARGO_BIN_EXE_soak"));
    soak.args([
        "tx",
        "--messages",
        "20000",
        "--faults",
        "6",
        "--every",
        "6",
        "--with",
        SIX,
        "--out",
    ])
    .arg(folder.join("pages"))
    .arg("--journals")
    .arg(folder.join("journals"));
    soak
}

/// Twenty thousand messages, a fifth of them published twice, while a consumer is killed, connections are cut, PostgreSQL
/// is killed, a consumer is frozen, sessions are ended and the broker is killed: each has one effect. It is stopped on
/// its way and goes on.
#[test]
fn a_small_soak_of_effects_in_the_transaction_of_their_record() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = soak(folder.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = Vec::new();
    for line in BufReader::new(first.stdout.take().unwrap()).lines() {
        said.push(line.unwrap());
        // What comes every ten seconds; the first time, after the servers have started.
        if said.last().is_some_and(|line| line.contains("processes started")) && said.len() < 3 {
            kill_process(Pid::from_child(&first), Signal::TERM).unwrap();
        }
    }
    assert!(first.wait().unwrap().success(), "{said:#?}");
    assert!(said.last().unwrap().ends_with("--resume"), "it has not been stopped: {said:#?}");

    let second = soak(folder.path()).arg("--resume").output().unwrap();
    let said = String::from_utf8_lossy(&second.stdout);
    assert!(second.status.success(), "{said}\n{}", String::from_utf8_lossy(&second.stderr));
    let pages = folder.path().join("pages");
    for ending in ["md", "json", "svg"] {
        assert!(pages.join(format!("tx.{ending}")).is_file());
    }
    let page = std::fs::read_to_string(pages.join("tx.md")).unwrap();
    for words in ["Everything was as promised", "2 parts 20000 messages", "6 faults (F)"] {
        assert!(page.contains(words), "{words} is missing: {page}");
    }
}
