//! A handler that fails, and its neighbours.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mmate_core::{Counts, DeadLetter, DeadReason, HandlerError, Outcome};
use mmate_idempotency::{GroupCommit, Tx};
use sqlx::{Connection, Sqlite};

use crate::bench::{Act, Bench, Visit, act, counts_when, ended};

const IDS: [&str; 5] = ["0", "1", "2", "3", "4"];

/// A group of five, of which the handler of `bad` does this after its effect, at each of its runs.
/// The counts in the end, when each of the others took effect once, and how often each ran.
async fn with_one_that<F, Fut>(bench: &Bench, bad: &'static str, does: F) -> (Counts, Vec<usize>)
where
    F: Fn(Tx<Sqlite>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Outcome, HandlerError>> + Send + 'static,
{
    let does = Arc::new(does);
    let script: Act = act(move |visit: Visit, tx| {
        let does = Arc::clone(&does);
        async move { if visit.id == bad { does(tx).await } else { Ok(Outcome::Done) } }
    });
    let options = GroupCommit::up_to(5).in_flight(1).linger(Duration::from_secs(1));
    let subscription = bench
        .builder()
        .timeout(Duration::from_millis(500))
        .idempotent(bench.strategy(options))
        .handler(bench.handler(script));
    let running = bench.start_with(subscription, Duration::from_secs(20)).await;
    bench.publish(running.publisher(), &IDS).await;
    let counts = counts_when(&[&running], |counts| ended(counts) == 5).await;
    running.stop().await.unwrap();
    let effects = bench.effects().await;
    for id in IDS.into_iter().filter(|id| *id != bad) {
        assert_eq!(effects.iter().filter(|one| *one == id).count(), 1, "{id}: {effects:?}");
    }
    let runs = bench.runs_of_each();
    bench.assert_no_connection_is_dirty().await;
    (counts, IDS.iter().map(|id| runs.get(*id).copied().unwrap_or_default()).collect())
}

/// What a case with a failing one comes to: none of its effects, and the others' once. It ran in
/// company and alone at its first attempt, and alone, or first, at its second.
async fn assert_fails_alone(bench: &Bench, (counts, runs): (Counts, Vec<usize>)) {
    assert_eq!((counts.succeeded, counts.retried, counts.dead_lettered), (4, 1, 1));
    assert_eq!(counts.duplicates.total(), 0);
    assert_eq!(runs, [2, 2, 3, 1, 1], "who had run before it ran again, who had not ran once");
    assert!(!bench.effects().await.contains(&"2".to_owned()));
    assert_eq!(bench.records().await, ["0", "1", "3", "4"]);
}

/// S27
#[tokio::test]
async fn an_error_leaves_the_neighbours_alone() {
    let bench = Bench::new().await;
    let case = with_one_that(&bench, "2", async |_| Err(HandlerError::retryable("no"))).await;
    assert_fails_alone(&bench, case).await;
}

/// S11, S27
#[tokio::test]
async fn a_panic_leaves_the_neighbours_alone() {
    let bench = Bench::new().await;
    let case = with_one_that(&bench, "2", async |_| panic!("as the test wants it")).await;
    assert_fails_alone(&bench, case).await;
}

/// S11, S27
#[tokio::test]
async fn a_timeout_leaves_the_neighbours_alone() {
    let bench = Bench::new().await;
    let case = with_one_that(&bench, "2", async |_| std::future::pending().await).await;
    assert_fails_alone(&bench, case).await;
}

#[tokio::test]
async fn a_transaction_that_is_kept_leaves_the_neighbours_alone() {
    let bench = Bench::new().await;
    let kept = Arc::new(Mutex::new(Vec::new()));
    let case = with_one_that(&bench, "2", {
        let kept = Arc::clone(&kept);
        move |tx| {
            // Let go of by a task that outlives the handler.
            let kept = Arc::clone(&kept);
            async move {
                let keeper = tokio::spawn(async move {
                    tokio::task::yield_now().await;
                    tokio::task::yield_now().await;
                    drop(tx);
                });
                kept.lock().unwrap().push(keeper);
                Ok(Outcome::Done)
            }
        }
    })
    .await;
    assert_fails_alone(&bench, case).await;
}

#[tokio::test]
async fn a_savepoint_left_open_leaves_the_neighbours_alone() {
    let bench = Bench::new().await;
    let case = with_one_that(&bench, "2", async |mut tx| {
        std::mem::forget(tx.begin().await?);
        Ok(Outcome::Done)
    })
    .await;
    assert_fails_alone(&bench, case).await;
}

/// Which of them a commit fails for is not known, so each that ran in the group runs again.
#[tokio::test]
async fn a_constraint_that_fails_at_the_commit_leaves_the_neighbours_alone() {
    let bench = Bench::new().await;
    let (counts, runs) = with_one_that(&bench, "2", async |mut tx| {
        sqlx::query("INSERT INTO children VALUES (7)").execute(&mut *tx).await?;
        Ok(Outcome::Done)
    })
    .await;
    assert_eq!((counts.succeeded, counts.retried, counts.dead_lettered), (4, 1, 1));
    assert_eq!(runs, [2, 2, 3, 2, 2]);
    assert_eq!(bench.records().await, ["0", "1", "3", "4"]);
}

/// S10, S27: a permanent error is dead-lettered at its first attempt, after it failed alone.
#[tokio::test]
async fn a_permanent_error_dead_letters_one_message_only() {
    let bench = Bench::new().await;
    let (counts, runs) =
        with_one_that(&bench, "2", async |_| Err(HandlerError::permanent("never"))).await;
    assert_eq!((counts.succeeded, counts.retried, counts.dead_lettered), (4, 0, 1));
    assert_eq!(runs, [2, 2, 2, 1, 1]);
    assert_eq!(bench.records().await, ["0", "1", "3", "4"]);
}

/// Whoever runs first has seen nothing of its neighbours, so what it says holds.
#[tokio::test]
async fn the_first_of_a_group_fails_without_a_second_run() {
    let bench = Bench::new().await;
    let (counts, runs) =
        with_one_that(&bench, "0", async |_| Err(HandlerError::permanent("never"))).await;
    assert_eq!((counts.succeeded, counts.retried, counts.dead_lettered), (4, 0, 1));
    assert_eq!(runs, [1, 1, 1, 1, 1]);
    assert_eq!(bench.effects().await, ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn other_outcomes_roll_back_and_leave_the_neighbours_alone() {
    let outcomes = [
        Outcome::DeadLetter(DeadLetter::new(DeadReason::Permanent, "it says so")),
        Outcome::Retry { after: None },
    ];
    for outcome in outcomes {
        let bench = Bench::new().await;
        let (counts, _) = with_one_that(&bench, "2", move |_| {
            let outcome = outcome.clone();
            async move { Ok(outcome) }
        })
        .await;
        assert_eq!((counts.succeeded, counts.dead_lettered), (4, 1));
        assert_eq!(bench.records().await, ["0", "1", "3", "4"]);
    }
}

/// Nothing is Done before its handler ran, so one that commits by itself makes nobody else Done.
#[tokio::test]
async fn a_handler_that_commits_by_itself_loses_no_neighbour() {
    for then_fails in [false, true] {
        let bench = Bench::new().await;
        let script = act(move |visit: Visit, mut tx| async move {
            if visit.id == "2" {
                sqlx::query("COMMIT").execute(&mut *tx).await?;
            }
            if then_fails && visit.id == "3" && visit.run == 1 {
                return Err(HandlerError::retryable(
                    "after a commit that was none of its business",
                ));
            }
            Ok(Outcome::Done)
        });
        let options = GroupCommit::up_to(5).in_flight(1).linger(Duration::from_secs(1));
        let running = bench.start(options, script).await;
        bench.publish(running.publisher(), &IDS).await;
        let counts = counts_when(&[&running], |counts| ended(counts) == 5).await;
        // Who failed first in its next group has failed by itself.
        let expected = (0, u64::from(then_fails));
        assert_eq!((counts.dead_lettered, counts.retried), expected, "{counts:?}");
        let effects = bench.effects().await;
        for id in IDS {
            assert_eq!(effects.iter().filter(|one| *one == id).count(), 1, "{id}: {effects:?}");
        }
        assert_eq!(bench.records().await, IDS);
        running.stop().await.unwrap();
        bench.assert_no_connection_is_dirty().await;
    }
}

#[tokio::test]
async fn a_handler_that_rolls_back_by_itself_loses_no_neighbour() {
    let bench = Bench::new().await;
    let (counts, _) = with_one_that(&bench, "2", async |mut tx| {
        sqlx::query("ROLLBACK").execute(&mut *tx).await?;
        Ok(Outcome::Done)
    })
    .await;
    assert_eq!((counts.dead_lettered, counts.retried), (1, 1), "{counts:?}");
    assert_eq!(bench.records().await, ["0", "1", "3", "4"]);
}

/// A handler that waits keeps its neighbours for the group's time and no longer, and then has its own.
#[tokio::test]
async fn a_slow_handler_is_run_alone_when_the_time_of_its_group_is_over() {
    let bench = Bench::new().await;
    let script = act(async |visit: Visit, _| {
        if visit.id == "1" {
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        Ok(Outcome::Done)
    });
    let options = GroupCommit::up_to(5)
        .in_flight(1)
        .linger(Duration::from_secs(1))
        .time_limit(Duration::from_secs(1));
    let running = bench.start(options, script).await;
    bench.publish(running.publisher(), &IDS).await;
    let counts = counts_when(&[&running], |counts| ended(counts) == 5).await;
    assert_eq!((counts.succeeded, counts.retried), (5, 0));
    let runs = bench.runs_of_each();
    assert_eq!((runs["0"], runs["1"], runs["2"]), (2, 2, 1));
    assert_eq!(bench.records().await, IDS);
    assert_eq!(bench.effects().await.len(), 5);
    running.stop().await.unwrap();
    bench.assert_no_connection_is_dirty().await;
}
