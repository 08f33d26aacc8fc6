//! A small soak; `scripts/soak` runs large ones.

use std::process::Command;

/// The first six of the soak's own, which need nothing but servers.
const SIX: &str =
    "consumer-kill,network-cut,database-kill,consumer-freeze,sessions-end,broker-kill";

/// Twenty thousand messages, a fifth of them published twice, while a consumer is killed, connections are cut, PostgreSQL
/// is killed, a consumer is frozen, sessions are ended and the broker is killed: each has one effect.
#[test]
fn a_small_soak_of_effects_in_the_transaction_of_their_record() {
    let folder = tempfile::tempdir().unwrap();
    let soak = Command::new(env!("CARGO_BIN_EXE_soak"))
        .args([
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
        .arg(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&soak.stdout);
    assert!(soak.status.success(), "{said}\n{}", String::from_utf8_lossy(&soak.stderr));
    for ending in ["md", "json", "svg"] {
        assert!(folder.path().join(format!("tx.{ending}")).is_file());
    }
    let page = std::fs::read_to_string(folder.path().join("tx.md")).unwrap();
    assert!(page.contains("Everything was as promised") && page.contains("6 faults (F)"), "{page}");
}
