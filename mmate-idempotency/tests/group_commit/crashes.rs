//! Services that are cut off, and commits that nobody knows of.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use mmate_core::{HandlerError, Outcome, Publisher};
use mmate_idempotency::GroupCommit;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

use crate::bench::{Bench, Visit, act, counts_when, ended, just_the_effect};

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// S24: everything in the process that has to do with the service ends at the n-th row that is
/// written, or at the commit, for each n. There is all of a group then, or nothing; and the next
/// process has each effect once.
#[test]
fn of_a_group_that_is_killed_at_any_statement_there_is_all_or_nothing() {
    const IDS: [&str; 4] = ["a", "b", "c", "d"];
    let (mut nothing, mut all, mut at) = (0, 0, 0);
    loop {
        let (setting, dying) = (runtime(), runtime());
        let bench = setting.block_on(Bench::new());
        // The queue and the tables are made.
        let started = bench.start(GroupCommit::default(), just_the_effect());
        setting.block_on(async { started.await.stop().await.unwrap() });
        // SQLite tells of rows in tables of another kind than that of the records.
        let sql = "CREATE TABLE steps (step TEXT);
            CREATE TRIGGER claimed AFTER INSERT ON processed_messages
                BEGIN INSERT INTO steps VALUES ('claimed'); END;
            CREATE TRIGGER completed AFTER UPDATE ON processed_messages
                BEGIN INSERT INTO steps VALUES ('completed'); END";
        setting.block_on(sqlx::raw_sql(sql).execute(&bench.pool)).unwrap();
        let publisher = setting.block_on(Publisher::connect(&bench.broker, "p")).unwrap();
        setting.block_on(bench.publish(&publisher, &IDS));

        let (reached, is_reached) = mpsc::channel();
        let (dead, is_dead) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
        let die = {
            let dead = Arc::clone(&dead);
            move |step: usize| {
                if step == at {
                    reached.send(()).unwrap();
                    // This thread is SQLite's, and goes on when the runtime is no more.
                    while !dead.load(Ordering::SeqCst) {
                        std::thread::yield_now();
                    }
                }
            }
        };
        let step = Arc::new(is_dead);
        let (count, at_change) = (Arc::clone(&step), die.clone());
        bench.hooks.at_each_change(move || at_change(count.fetch_add(1, Ordering::SeqCst)));
        bench.hooks.before_each_commit(move || die(step.fetch_add(1, Ordering::SeqCst)));
        let options = GroupCommit::up_to(4).in_flight(1).linger(Duration::from_secs(1));
        let pool = dying.block_on(crate::bench::pool_of(bench.folder.path(), 2, &bench.hooks));
        let strategy = mmate_idempotency::Transactional::new(pool).group_commit(options);
        let subscription =
            bench.builder().idempotent(strategy).handler(bench.handler(just_the_effect()));
        let running = dying.block_on(bench.start_with(subscription, Duration::from_secs(5)));
        let began = Instant::now();
        let died = loop {
            if is_reached.recv_timeout(Duration::from_millis(5)).is_ok() {
                break true;
            }
            if running.stats().total().succeeded == 4 {
                break false;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "at {at}");
        };
        dying.shutdown_timeout(Duration::from_secs(30));
        drop((running, is_reached));
        dead.store(true, Ordering::SeqCst);

        setting.block_on(async {
            bench.hooks.at_each_change(|| {});
            bench.hooks.before_each_commit(|| {});
            // Whoever gets to write now comes after all that the dead one did.
            sqlx::query("INSERT INTO parents DEFAULT VALUES").execute(&bench.pool).await.unwrap();
            let (mut effects, records) = (bench.effects().await, bench.records().await);
            effects.sort_unstable();
            assert_eq!(effects, records, "at {at}");
            match effects.len() {
                0 => nothing += 1,
                4 => all += 1,
                n => panic!("{n} effects of 4 at {at}"),
            }
            let running = bench.start(GroupCommit::default(), just_the_effect()).await;
            tokio::time::timeout(Duration::from_secs(60), bench.broker.inner().idle())
                .await
                .unwrap();
            assert_eq!(bench.effects().await.len(), 4, "at {at}");
            assert_eq!(bench.records().await, IDS);
            running.stop().await.unwrap();
        });
        if !died {
            break;
        }
        at += 1;
    }
    // Four claims, effects and completions, and the commit.
    assert_eq!(at, 13);
    assert!(nothing >= 12 && all >= 1, "{nothing} were undone and {all} were there");
}

/// S16: the service is dropped somewhere around a group's commit.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_cuts_around_the_commit_none_loses_and_none_doubles() {
    const CUTS: usize = 300;
    let bench = Bench::new().await;
    let publisher = Publisher::connect(&bench.broker, "p").await.unwrap();
    let mut random = fastrand::Rng::with_seed(16);
    let returned = Arc::new(Semaphore::new(0));
    let script = {
        let returned = Arc::clone(&returned);
        act(move |_, _| {
            let returned = Arc::clone(&returned);
            async move {
                returned.add_permits(1);
                Ok(Outcome::Done)
            }
        })
    };
    let options = GroupCommit::up_to(4).linger(Duration::from_millis(1));
    bench.start(options, Arc::clone(&script)).await.stop().await.unwrap();
    let mut stats = Vec::new();
    for cut in 0..CUTS {
        for n in 0..4 {
            bench.publish(&publisher, &[&format!("{cut}-{n}")]).await;
        }
        let running = bench.start(options, Arc::clone(&script)).await;
        returned.acquire_many(random.u32(1..=4)).await.unwrap().forget();
        for _ in 0..random.usize(0..60) {
            tokio::task::yield_now().await;
        }
        stats.push(running.stats().clone());
        drop(running);
        while let Ok(permit) = returned.try_acquire() {
            permit.forget();
        }
    }
    let running = bench.start(options, script).await;
    tokio::time::timeout(Duration::from_secs(120), bench.broker.inner().idle()).await.unwrap();
    let effects = bench.effects().await;
    let distinct: HashSet<_> = effects.iter().collect();
    assert_eq!((effects.len(), distinct.len()), (CUTS * 4, CUTS * 4), "none lost, none doubled");
    let duplicates: u64 = stats.iter().map(|stats| stats.total().duplicates.total()).sum();
    let ran = bench.runs.lock().unwrap().len();
    assert!(duplicates > 10, "{duplicates} were committed and not acknowledged");
    assert!(ran > CUTS * 4 + 10, "{} had run and were rolled back", ran - CUTS * 4);
    running.stop().await.unwrap();
    bench.assert_no_connection_is_dirty().await;
}

/// S16: no answer to a commit that took effect. Nothing is acknowledged or dead-lettered by guess, all
/// of the group is shown again, and the records decide.
#[tokio::test]
async fn after_a_commit_without_an_answer_the_records_decide() {
    let bench = Bench::new().await;
    let strategy = bench
        .strategy(GroupCommit::up_to(3).in_flight(1).linger(Duration::from_secs(1)))
        .answer_timeout(Duration::from_millis(300));
    let subscription =
        bench.builder().idempotent(strategy).handler(bench.handler(just_the_effect()));
    let running = bench.start_with(subscription, Duration::from_secs(20)).await;
    let first = AtomicBool::new(true);
    let stats = running.stats().clone();
    bench.hooks.before_each_commit(move || {
        let is_first = first.swap(false, Ordering::SeqCst);
        let began = Instant::now();
        while is_first && stats.total().deferred < 3 && began.elapsed().as_secs() < 30 {
            std::thread::yield_now();
        }
    });
    bench.publish(running.publisher(), &["a", "b", "c"]).await;
    let counts = counts_when(&[&running], |counts| ended(counts) == 3).await;
    assert_eq!((counts.deferred, counts.duplicates.total()), (3, 3), "{counts:?}");
    assert_eq!((counts.succeeded, counts.retried, counts.dead_lettered), (0, 0, 0));
    assert_eq!(bench.effects().await, ["a", "b", "c"]);
    running.stop().await.unwrap();
    bench.assert_no_connection_is_dirty().await;
}

/// S49: a drain that runs out of time drops the handler that is at it; its neighbours are undone with
/// it, and all of them run elsewhere.
#[tokio::test]
async fn an_aborted_group_leaves_nothing_behind_and_runs_elsewhere() {
    let bench = Bench::new().await;
    let entered = Arc::new(Semaphore::new(0));
    let script = {
        let entered = Arc::clone(&entered);
        act(move |visit: Visit, _tx| {
            let entered = Arc::clone(&entered);
            async move {
                if visit.id == "b" {
                    entered.add_permits(1);
                    std::future::pending::<()>().await;
                }
                Ok::<_, HandlerError>(Outcome::Done)
            }
        })
    };
    let options = GroupCommit::up_to(3)
        .in_flight(1)
        .linger(Duration::from_secs(1))
        .time_limit(Duration::from_secs(60));
    let subscription =
        bench.builder().idempotent(bench.strategy(options)).handler(bench.handler(script));
    let running = bench.start_with(subscription, Duration::ZERO).await;
    bench.publish(running.publisher(), &["a", "b", "c"]).await;
    entered.acquire().await.unwrap().forget();
    running.stop().await.unwrap();
    assert_eq!((bench.effects().await.len(), bench.records().await.len()), (0, 0));
    bench.assert_no_connection_is_dirty().await;
    let running = bench.start(GroupCommit::default(), just_the_effect()).await;
    counts_when(&[&running], |counts| ended(counts) == 3).await;
    assert_eq!(bench.records().await, ["a", "b", "c"]);
    assert_eq!(bench.effects().await.len(), 3);
    running.stop().await.unwrap();
}
