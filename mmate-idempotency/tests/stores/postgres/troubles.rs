//! What is refused, what waits, and what breaks.

use super::*;

/// What no repetition mends is told from what does not answer. The password is told to nobody.
#[tokio::test]
async fn errors_say_what_they_mean_and_no_password() {
    for url in ["mysql://a:secret@localhost/b", "a:secret", "postgres://a:secret@b:c/d"] {
        let error = PostgresStore::connect(url).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Permanent, "{error}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }

    let nobody = mmate_test_support::Port::reserve().unwrap();
    let url = format!("postgres://postgres:secret@127.0.0.1:{}/postgres", nobody.number());
    let error = PostgresStore::connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{error}");
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");

    let url = postgres_url().replace("postgres@", "postgres:secret@");
    let none = format!("{url}_of_no_such_name");
    let error = PostgresStore::connect(&none).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Permanent, "{error}");
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    let store = PostgresStore::connect(&url).await.unwrap();
    assert!(!format!("{store:?}").contains("secret"), "{store:?}");

    let store = store.table(unique("none")).unwrap();
    let error = store.claim(&request("a")).await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Permanent, "{error}");
}

/// S36, F48: what the database refuses for ever is the fault of one, and harms none of those that
/// are asked for together with it.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_key_is_refused_and_harms_no_other() {
    assert!(RecordKey::new("scope", "a\0b").is_err());
    assert!(RecordKey::new("scope", "x".repeat(256)).is_err());

    let (store, _) = by_its_own_clock().await;
    let mut all = JoinSet::new();
    for number in 0..40 {
        let store = store.clone();
        all.spawn(async move {
            // Neither fits into an index, and the second is no text.
            let noise = || fastrand::alphanumeric();
            let scope = match number {
                7 => std::iter::repeat_with(noise).take(20_000).collect(),
                19 => "a\0b".to_owned(),
                _ => "scope".to_owned(),
            };
            let key = RecordKey::new(scope, format!("{number}")).unwrap();
            let claim = store.claim(&ClaimRequest::new(key, Claimant::default(), LEASE)).await;
            (number, claim.map_err(|error| error.kind()))
        });
    }
    for (number, claim) in all.join_all().await {
        match number {
            7 | 19 => assert_eq!(claim, Err(StoreErrorKind::Permanent), "{number}"),
            _ => assert!(matches!(claim, Ok(Claim::Granted(_))), "{number}: {claim:?}"),
        }
    }
}

/// F44: who holds a record's lock in a transaction keeps those waiting who want that record, for a
/// while, and nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_record_is_busy_and_its_neighbours_are_not() {
    let (store, table) = by_its_own_clock().await;
    let held = granted(&store, "held").await;
    store.release(&held).await.unwrap();
    let mut stuck = connection().await;
    let mut stuck = stuck.begin().await.unwrap();
    let sql = format!("SELECT FROM {table} WHERE message_id = 'held' FOR UPDATE");
    sqlx::query(AssertSqlSafe(sql)).execute(&mut *stuck).await.unwrap();

    let mut all = JoinSet::new();
    for id in ["a", "held", "b", "c"] {
        let store = store.clone();
        all.spawn(async move { (id, store.claim(&request(id)).await.unwrap()) });
    }
    for (id, claim) in all.join_all().await {
        match claim {
            Claim::Busy { .. } => assert_eq!(id, "held"),
            claim => assert!(id != "held" && matches!(claim, Claim::Granted(_)), "{id}: {claim:?}"),
        }
    }
    stuck.rollback().await.unwrap();
    granted(&store, "held").await;
}

/// Two instances ask for the same keys in opposite orders, again and again.
#[tokio::test(flavor = "multi_thread")]
async fn opposite_orders_do_not_deadlock() {
    let (store, table) = by_its_own_clock().await;
    let other = PostgresStore::connect(&postgres_url()).await.unwrap().table(&table).unwrap();
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    let before: i64 =
        sqlx::query_scalar(deadlocks).fetch_one(&mut connection().await).await.unwrap();
    let mut all = JoinSet::new();
    for (store, backwards) in [(store, false), (other, true)] {
        all.spawn(async move {
            for round in 0..30 {
                let mut ids: Vec<usize> = (0..50).collect();
                if backwards {
                    ids.reverse();
                }
                let mut calls = JoinSet::new();
                for id in ids {
                    let store = store.clone();
                    calls.spawn(async move {
                        let request = request(&format!("{round}-{id}"));
                        if let Claim::Granted(grant) = store.claim(&request).await.unwrap() {
                            let permit = Permit::new(&request, grant);
                            assert_eq!(store.heartbeat(&permit, LEASE).await.unwrap(), Held::Yes);
                            assert_eq!(store.release(&permit).await.unwrap(), Held::Yes);
                        }
                    });
                }
                calls.join_all().await;
            }
        });
    }
    all.join_all().await;
    let after: i64 =
        sqlx::query_scalar(deadlocks).fetch_one(&mut connection().await).await.unwrap();
    assert_eq!(after, before);
}

/// Each call that finds a dead connection says so, and the next one has a new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_gets_over_the_end_of_its_connections() {
    let (_, table) = by_its_own_clock().await;
    let url = format!("{}?application_name={table}", postgres_url());
    let store = PostgresStore::connect(&url).await.unwrap().table(&table).unwrap();
    let held = granted(&store, "held").await;
    let sql = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE application_name = '{table}'"
    );
    let mut failures = 0;
    for round in 0..20 {
        let ended: i64 = sqlx::query_scalar(AssertSqlSafe(sql.clone()))
            .fetch_one(&mut connection().await)
            .await
            .unwrap();
        assert!(ended > 0);
        let request = request(&format!("{round}"));
        let granted = loop {
            match store.claim(&request).await {
                Ok(claim) => break claim,
                Err(error) => {
                    assert_eq!(error.kind(), StoreErrorKind::Unknown, "{error}");
                    failures += 1;
                }
            }
        };
        assert!(matches!(granted, Claim::Granted(_)), "{granted:?}");
    }
    assert!((1..=20).contains(&failures), "{failures} failures");
    assert_eq!(store.complete(&held, None).await.unwrap(), Held::Yes);
}

/// S45: of a claim without an answer nobody knows whether it was made. It is recognised by who asks
/// again, and no other call is kept waiting by it.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_at_a_server_that_stands_still_is_in_doubt_and_recognised_afterwards() {
    let server = PostgreSql::start().unwrap();
    let store = PostgresStore::connect(&server.url()).await.unwrap();
    store.migrate().await.unwrap();
    let held = granted(&store, "held").await;
    server.pause();
    let (first, second) = (request("a"), request("b"));
    for claim in <[_; 2]>::from(tokio::join!(store.claim(&first), store.claim(&second))) {
        assert_eq!(claim.unwrap_err().kind(), StoreErrorKind::Unknown);
    }
    server.resume();
    assert_eq!(store.complete(&held, None).await.unwrap(), Held::Yes);
    for request in [first, second] {
        let claim = store.claim(&request).await.unwrap();
        let Claim::Granted(grant) = claim else { panic!("{claim:?}") };
        assert_eq!((grant.attempt, grant.taken_over), (1, false));
        assert!(matches!(
            store.claim(&self::request(request.key.id())).await,
            Ok(Claim::Busy { .. })
        ));
    }
}
