//! How much a shared commit saves.

use std::time::{Duration, Instant};

use mmate_core::Publisher;
use mmate_idempotency::{GroupCommit, Transactional};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::bench::{Bench, counts_when, just_the_effect};

const MESSAGES: usize = 2_000;

/// Messages a second, on a database file with `synchronous=FULL`, with a handler that inserts a row.
async fn rate(options: Option<GroupCommit>) -> f64 {
    let bench = Bench::new().await;
    let file = SqliteConnectOptions::new()
        .filename(bench.folder.path().join("bench.db"))
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let pool = SqlitePoolOptions::new().max_connections(4).connect_with(file).await.unwrap();
    let strategy = Transactional::new(pool);
    let strategy = match options {
        Some(options) => strategy.group_commit(options),
        None => strategy,
    };
    let start = || {
        let handler = bench.handler(just_the_effect());
        let subscription =
            bench.builder().concurrency(64).idempotent(strategy.clone()).handler(handler);
        bench.start_with(subscription, Duration::from_secs(30))
    };
    start().await.stop().await.unwrap();
    let publisher = Publisher::connect(&bench.broker, "p").await.unwrap();
    let messages = (0..MESSAGES).map(|n| bench.message(&format!("{n}")));
    assert!(publisher.publish_all(messages).await.iter().all(Result::is_ok));
    let began = Instant::now();
    let running = start().await;
    counts_when(&[&running], |counts| counts.succeeded == MESSAGES as u64).await;
    let took = began.elapsed();
    running.stop().await.unwrap();
    assert_eq!(bench.effects().await.len(), MESSAGES);
    MESSAGES as f64 / took.as_secs_f64()
}

/// `MMATE_TEST_LONG=1`, in a release build: five rounds of each, one after the other, so that both
/// have the same machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_shared_commit_handles_several_times_as_many_messages() {
    if std::env::var_os("MMATE_TEST_LONG").is_none_or(|value| value != "1") {
        eprintln!("skipped: it takes MMATE_TEST_LONG=1");
        return;
    }
    let mut ratios = Vec::new();
    for round in 1..=5 {
        let alone = rate(None).await;
        let together = rate(Some(GroupCommit::default())).await;
        let ratio = together / alone;
        println!("round {round}: {alone:.0}/s one by one, {together:.0}/s in groups: {ratio:.2}");
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median {:.2}", ratios[2]);
    assert!(ratios[2] > 1.5, "{ratios:?}");
}
