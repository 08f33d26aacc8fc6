//! The table, and which keys are the same.

use std::time::{Duration, SystemTime};

use mmate_idempotency::protocol::Claim;
use mmate_idempotency::store::{ClaimRequest, Claimant, RecordKey, StoreErrorKind};
use mmate_idempotency::{MySqlStore, Permit, Store};
use sqlx::MySqlPool;

use crate::bench::Bench;

const LEASE: Duration = Duration::from_secs(60);

fn request(scope: &str, id: &str) -> ClaimRequest<'static> {
    ClaimRequest::new(RecordKey::new(scope, id).unwrap(), Claimant::default(), LEASE)
}

async fn store(pool: &MySqlPool) -> MySqlStore {
    let store = MySqlStore::new(pool.clone());
    store.migrate().await.unwrap();
    store
}

/// S36, F48: in the databases' own default collation these are one or two.
#[tokio::test]
async fn ids_and_scopes_are_compared_byte_by_byte() {
    let bench = Bench::new().await;
    let store = store(&bench.pool).await;
    let longest = "x".repeat(255);
    let emoji = "🦀".repeat(63);
    let texts =
        ["abc", "ABC", "abc ", "àbc", "a\u{300}bc", "ß", "ss", "🦀", "🦞", &longest, &emoji];
    for scope in texts {
        for id in texts {
            let claim = store.claim(&request(scope, id)).await.unwrap();
            assert!(matches!(claim, Claim::Granted(_)), "{id:?} in {scope:?}: {claim:?}");
            let again = store.claim(&request(scope, id)).await.unwrap();
            assert!(matches!(again, Claim::Busy { .. }), "{id:?} in {scope:?}: {again:?}");
        }
    }
    assert_eq!(bench.records().await, (texts.len() * texts.len()) as i64);
}

/// S36: a database that is not strict would cut it, and take two for one.
#[tokio::test]
async fn a_scope_that_is_too_long_is_refused_and_harms_no_other() {
    let bench = Bench::new().await;
    sqlx::raw_sql("SET SESSION sql_mode = ''").execute(&bench.pool).await.unwrap();
    let store = store(&bench.pool).await;
    let long = "x".repeat(513);
    let (too_long, longest, other) =
        (request(&long, "a"), request(&long[1..], "a"), request("scope", "a"));
    let (refused, longest, other) =
        tokio::join!(store.claim(&too_long), store.claim(&longest), store.claim(&other));
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Permanent);
    assert!(error.to_string().contains("512 bytes"), "{error}");
    assert!(matches!(longest.unwrap(), Claim::Granted(_)));
    assert!(matches!(other.unwrap(), Claim::Granted(_)));
}

/// What is there for who audits the records harms no claim by its length.
#[tokio::test]
async fn what_is_kept_for_audits_is_cut_where_it_is_too_long() {
    let bench = Bench::new().await;
    let store = store(&bench.pool).await;
    let long = "ü".repeat(400);
    let mut request = request("scope", "a");
    request.message_type = &long;
    request.correlation_id = Some(&long);
    request.claimant = Claimant { service: &long, subscription: "q", instance: &long };
    assert!(matches!(store.claim(&request).await.unwrap(), Claim::Granted(_)));
    let kept: (String, String) =
        sqlx::query_as("SELECT message_type, correlation_id FROM processed_messages")
            .fetch_one(&bench.pool)
            .await
            .unwrap();
    assert_eq!((kept.0.chars().count(), kept.1.chars().count()), (255, 255));
}

/// S52: a reply may be long, and many of them are no reason to fail.
#[tokio::test(flavor = "multi_thread")]
async fn long_replies_are_kept_and_too_long_ones_are_refused_alone() {
    let bench = Bench::new().await;
    let store = store(&bench.pool).await;
    let mut all = tokio::task::JoinSet::new();
    for size in [0, 1, 500_000, 700_000, 3_000_000, 4_000_000, 20_000_000] {
        let store = store.clone();
        all.spawn(async move {
            let id = format!("{size}");
            let request = request("scope", &id);
            let Claim::Granted(grant) = store.claim(&request).await.unwrap() else { panic!() };
            let reply = bytes::Bytes::from(vec![7; size]);
            let completed =
                store.complete(&Permit::new(&request, grant), Some(reply.clone())).await;
            if size > 10_000_000 {
                assert!(completed.is_err());
                return;
            }
            completed.unwrap();
            let copy = super::records::request("scope", &id);
            let Claim::Duplicate(seen) = store.claim(&copy).await.unwrap() else { panic!() };
            assert_eq!(seen.reply, Some(reply));
        });
    }
    all.join_all().await;
}

/// S21: whatever the session's time zone, and however the clock of this process goes.
#[tokio::test]
async fn the_clock_is_the_databases_own() {
    let bench = Bench::new().await;
    let pool = sqlx::mysql::MySqlPoolOptions::new()
        .max_connections(1)
        .connect_with(bench.options.clone())
        .await
        .unwrap();
    let store = store(&pool).await;
    for zone in ["+00:00", "-07:00", "+12:45"] {
        let set = format!("SET time_zone = '{zone}'");
        sqlx::raw_sql(sqlx::AssertSqlSafe(set)).execute(&pool).await.unwrap();
        let mut first = request("scope", zone);
        first.lease = Duration::from_millis(50);
        let Claim::Granted(grant) = store.claim(&first).await.unwrap() else { panic!() };
        tokio::time::sleep(Duration::from_millis(60)).await;
        let again = request("scope", zone);
        let Claim::Granted(second) = store.claim(&again).await.unwrap() else { panic!() };
        assert_eq!((second.taken_over, second.fence), (true, grant.fence + 1));
        store.complete(&Permit::new(&again, second), None).await.unwrap();
        let Claim::Duplicate(seen) = store.claim(&first).await.unwrap() else { panic!() };
        let age = SystemTime::from(seen.since).elapsed().unwrap_or_default();
        assert!(age < Duration::from_secs(60), "{zone}: {age:?}");
    }
}

/// Many instances start at once, and see each other's records.
#[tokio::test(flavor = "multi_thread")]
async fn many_may_migrate_at_once() {
    let bench = Bench::new().await;
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let options = bench.options.clone();
        all.spawn(async move {
            let store = store(&crate::bench::pool_of(&options, 1).await).await;
            matches!(store.claim(&request("scope", "a")).await.unwrap(), Claim::Granted(_))
        });
    }
    let granted = all.join_all().await;
    assert_eq!(granted.into_iter().filter(|granted| *granted).count(), 1);
}
