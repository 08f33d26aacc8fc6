//! How much room a million records take. A program of its own, since it looks at all of its memory.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use mmate_idempotency::protocol::{Claim, Digest};
use mmate_idempotency::store::{ClaimRequest, Claimant, RecordKey};
use mmate_idempotency::{MemoryStore, Permit, Store};

/// What of this process is in memory, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// P10
#[tokio::test(flavor = "current_thread")]
async fn a_million_done_records_take_less_than_72_mib() {
    let store = MemoryStore::new().capacity(1_000_000);
    let before = resident();
    for n in 0..1_100_000 {
        let key = RecordKey::new("inventory/reserve-stock", format!("order-{n}")).unwrap();
        let mut request = ClaimRequest::new(key, Claimant::default(), Duration::from_secs(60));
        request.fingerprint = Some(Digest::from_bytes([7; 16]));
        let Claim::Granted(grant) = store.claim(&request).await.unwrap() else { panic!("{n}") };
        store.complete(&Permit::new(&request, grant), None).await.unwrap();
    }
    assert!(store.len() > 990_000);
    let taken = (resident() - before) / 1024 / 1024;
    println!("{} records take {taken} MiB", store.len());
    assert!(taken <= 72, "{taken} MiB");
}
