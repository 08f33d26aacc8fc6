//! Records in SQLite.

use std::time::SystemTime;

use mmate_idempotency::protocol::Claim;
use mmate_idempotency::store::{ClaimRequest, Claimant, RecordKey, StoreErrorKind};
use mmate_idempotency::{Permit, SqliteStore};
use tempfile::TempDir;

use super::*;

const LEASE: Duration = Duration::from_secs(60);

struct OnSqlite {
    folder: TempDir,
    retention: Retention,
    clock: ManualClock,
}

#[async_trait::async_trait]
impl Harness for OnSqlite {
    async fn store(&self) -> Arc<dyn Store> {
        let store = SqliteStore::open(self.folder.path().join("records.db")).await.unwrap();
        let store = store.retention(self.retention).clock(self.clock.clone());
        store.migrate().await.unwrap();
        Arc::new(store)
    }

    async fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    async fn turn_back(&self, by: Duration) {
        self.clock.turn_back(by);
    }

    async fn now(&self) -> Time {
        self.clock.now()
    }
}

fn harness(retention: Retention) -> OnSqlite {
    OnSqlite { folder: tempfile::tempdir().unwrap(), retention, clock: ManualClock::new() }
}

mmate_idempotency::store_conformance!(super::harness);

fn key() -> RecordKey {
    RecordKey::new("scope", "a").unwrap()
}

/// S21
#[tokio::test]
async fn the_clock_is_the_databases_own() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("records.db")).await.unwrap();
    store.migrate().await.unwrap();
    let request = ClaimRequest::new(key(), Claimant::default(), Duration::from_millis(50));
    let Claim::Granted(grant) = store.claim(&request).await.unwrap() else { panic!() };
    tokio::time::sleep(Duration::from_millis(60)).await;
    let again = ClaimRequest::new(key(), Claimant::default(), Duration::from_secs(60));
    let Claim::Granted(second) = store.claim(&again).await.unwrap() else { panic!() };
    assert_eq!((second.taken_over, second.fence), (true, grant.fence + 1));
    store.complete(&Permit::new(&again, second), None).await.unwrap();
    let Claim::Duplicate(seen) = store.claim(&request).await.unwrap() else { panic!() };
    let age = SystemTime::from(seen.since).elapsed().unwrap_or_default();
    assert!(age < Duration::from_secs(60), "{age:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_may_open_and_migrate_a_new_file_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let file = folder.path().join("records.db");
        all.spawn(async move {
            let store = SqliteStore::open(file).await.unwrap();
            store.migrate().await.unwrap();
            let request = ClaimRequest::new(key(), Claimant::default(), LEASE);
            matches!(store.claim(&request).await.unwrap(), Claim::Granted(_))
        });
    }
    let granted = all.join_all().await;
    assert_eq!(granted.into_iter().filter(|granted| *granted).count(), 1);
}

#[tokio::test]
async fn a_url_and_a_path_name_the_same_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("records.db");
    let url = format!("sqlite://{}", path.display());
    let (one, other) =
        (SqliteStore::open(&path).await.unwrap(), SqliteStore::open(&url).await.unwrap());
    one.migrate().await.unwrap();
    let request = ClaimRequest::new(key(), Claimant::default(), LEASE);
    assert!(matches!(one.claim(&request).await.unwrap(), Claim::Granted(_)));
    let again = ClaimRequest::new(key(), Claimant::default(), LEASE);
    assert!(matches!(other.claim(&again).await.unwrap(), Claim::Busy { .. }));
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let error = SqliteStore::open(folder.path().join("none/records.db")).await.unwrap_err();
    assert!(error.to_string().contains("failed to open the database"), "{error}");
    std::fs::write(folder.path().join("text"), "x".repeat(8192)).unwrap();
    let error = SqliteStore::open(folder.path().join("text")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Permanent, "{error}");
}
