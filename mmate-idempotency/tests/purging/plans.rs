//! What a purge reads.

use std::time::{Duration, Instant};

use crate::databases::{Database, OnPostgres};

/// S39: however much was removed before, a purge begins where what is over begins.
#[tokio::test(flavor = "multi_thread")]
async fn on_postgresql_a_purge_never_reads_the_table_from_its_beginning() {
    let database = OnPostgres::new(false).await;
    let store = database.store().await;
    store.migrate().await.unwrap();
    database.fill(20_000).await;
    let mut removed = 0;
    for _ in 0..4 {
        removed += store.purge(500).await.unwrap();
    }
    assert_eq!(removed, 2_000);
    // The server counts what a session did at the latest when that ends.
    drop(store);
    let began = Instant::now();
    let scans = loop {
        let (scans, removed) = database.index_scans().await;
        if removed == 2_000 {
            break scans;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{removed} were counted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(scans, 4, "each purge begins in the index");
}
