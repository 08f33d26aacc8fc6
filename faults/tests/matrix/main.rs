//! S12, S13, S15, S16, S24, F4 to F10: the crash-point matrix. A part of it runs with all tests, and the whole by
//! `scripts/crash-matrix`.

use std::collections::HashMap;
use std::sync::Arc;

use mmate_faults::matrix::{
    Boundary, Cell, Defect, Expected, Fault, Guard, Observed, Records, Servers, Stage, expected,
    table,
};
use mmate_test_support::{amqp_url, mariadb_url, postgres_url, redis_url, unique};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

/// So many cells run at a time, each in two processes.
const AT_A_TIME: usize = 6;

fn stage(name: &str) -> Stage {
    let servers = Servers {
        amqp: amqp_url(),
        postgres: postgres_url(),
        mariadb: mariadb_url(),
        redis: redis_url(),
    };
    Stage::new(env!("CARGO_BIN_EXE_crash-consumer"), servers, unique(name))
}

/// Runs cells, and returns what came of them. Of one that did not come to its end the panic is in the output, and it is
/// not among them. What there is so far is kept after each.
async fn run(cells: Vec<Cell>, keep: impl Fn(&[Observed])) -> Vec<Observed> {
    let stage = Arc::new(stage("matrix"));
    let (mut running, mut cells_of) = (JoinSet::new(), HashMap::new());
    let (mut cells, mut results) = (cells.into_iter().enumerate(), Vec::new());
    loop {
        while running.len() < AT_A_TIME
            && let Some((number, cell)) = cells.next()
        {
            let (stage, runtime) = (Arc::clone(&stage), Handle::current());
            let task = running.spawn_blocking(move || runtime.block_on(stage.run(number, cell)));
            cells_of.insert(task.id(), cell);
        }
        match running.join_next_with_id().await {
            None => return results,
            Some(Ok((_, observed))) => {
                println!("{}: {}", observed.cell, observed.verdict);
                results.push(observed);
                keep(&results);
            }
            Some(Err(error)) => println!("{}: {error}", cells_of[&error.id()]),
        }
    }
}

fn wrong(results: &[Observed]) -> Vec<&Observed> {
    results.iter().filter(|observed| !observed.is_right()).collect()
}

/// S12, S13, S15, S16, S24
#[tokio::test(flavor = "multi_thread")]
async fn at_chosen_points_of_every_strategy_what_comes_of_a_fault_is_as_the_rules_say() {
    use {Boundary as B, Fault as F, Records as R};
    let tracked = [
        (R::Sqlite, B::ClaimSent, F::Error),
        (R::Sqlite, B::EffectApplied, F::Abort),
        (R::Postgres, B::ClaimApplied, F::Abort),
        (R::MariaDb, B::EndSent, F::Abort),
        (R::Redis, B::EndApplied, F::Lost),
        (R::Redis, B::HandlerStarted, F::Delayed),
        (R::Memory, B::Received, F::Abort),
    ];
    let transactional = [
        (R::Sqlite, B::EndApplied, F::Abort),
        (R::Postgres, B::ClaimApplied, F::Lost),
        (R::Postgres, B::EndApplied, F::Lost),
        (R::Postgres, B::EffectApplied, F::Delayed),
        (R::MariaDb, B::EndSent, F::Error),
        (R::MariaDb, B::AckWritten, F::Abort),
    ];
    let grouped = [
        (R::Sqlite, B::EndSent, F::Abort),
        (R::Postgres, B::EndApplied, F::Error),
        (R::MariaDb, B::ClaimApplied, F::Lost),
    ];
    let locked = [
        (R::Sqlite, B::EffectApplied, F::Abort),
        (R::Postgres, B::EndSent, F::Abort),
        (R::MariaDb, B::ClaimApplied, F::Abort),
        (R::Redis, B::HandlerStarted, F::Delayed),
        (R::Redis, B::EndApplied, F::Lost),
    ];
    let cells = tracked.map(|(records, at, fault)| Cell::new(Guard::Tracked(records), at, fault));
    let others = transactional
        .map(|(records, at, fault)| Cell::new(Guard::Transactional(records), at, fault));
    let groups =
        grouped.map(|(records, at, fault)| Cell::new(Guard::GroupCommit(records), at, fault));
    let locks = locked.map(|(records, at, fault)| Cell::new(Guard::Locked(records), at, fault));
    let cells: Vec<_> = cells.into_iter().chain(others).chain(groups).chain(locks).collect();
    let count = cells.len();
    let results = run(cells, |_| {}).await;
    assert_eq!(results.len(), count, "cells that did not end");
    assert!(wrong(&results).is_empty(), "{:#?}", wrong(&results));
}

/// The matrix itself is tested: of a store that records a message as done when it is claimed, a crash in the handler
/// loses it.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_marks_before_the_handler_does_not_pass() {
    let guard = Guard::Tracked(Records::Postgres);
    let cell = Cell::new(guard, Boundary::HandlerStarted, Fault::Abort);
    let observed = stage("marking").with(Defect::MarksFirst).run(0, cell).await;
    assert!(!observed.is_right());
    assert_eq!(observed.verdict.lost, std::slice::from_ref(&observed.struck), "{observed:#?}");
}

/// Of locks that do not exclude each other, two are seen inside of one.
#[tokio::test(flavor = "multi_thread")]
async fn locks_of_another_key_than_that_of_the_work_do_not_pass() {
    let guard = Guard::Locked(Records::Redis);
    let cell = Cell::new(guard, Boundary::HandlerStarted, Fault::Error);
    let observed = stage("locking").with(Defect::LocksTheMessage).run(0, cell).await;
    assert!(!observed.is_right());
    assert!(observed.overlaps[0].starts_with("both inside"), "{observed:#?}");
    assert!(observed.verdict.is_clean(), "nothing but that is wrong: {observed:#?}");
}

/// The whole, or what `CRASH_MATRIX_ONLY` names in the words of the table; the table goes to the file
/// `CRASH_MATRIX_TABLE`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: scripts/crash-matrix runs it"]
async fn the_whole_matrix_is_as_the_rules_say() {
    let only = std::env::var("CRASH_MATRIX_ONLY").unwrap_or_default();
    let is_possible = |cell: &Cell| !matches!(expected(*cell), Expected::Impossible(_));
    let cells: Vec<_> =
        Cell::all().filter(is_possible).filter(|cell| cell.to_string().contains(&only)).collect();
    assert!(!cells.is_empty(), "no cell has {only:?} in its name");
    let (count, file) = (cells.len(), std::env::var("CRASH_MATRIX_TABLE").ok());
    let results = run(cells, |results| {
        if let Some(file) = &file {
            let (ran, wrong) = (results.len(), wrong(results).len());
            let all = Cell::all().filter(is_possible).count();
            let head = format!("Of {all} cells {ran} were run, and {wrong} came out wrong.\n\n");
            std::fs::write(file, head + &table(results)).unwrap();
        }
    })
    .await;
    assert_eq!(results.len(), count, "cells that did not end");
    assert!(wrong(&results).is_empty(), "{:#?}", wrong(&results));
}
