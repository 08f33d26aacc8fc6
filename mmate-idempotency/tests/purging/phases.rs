//! Load without purges and with them, in turn.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mmate_idempotency::{Idempotent, Store};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::databases::Database;
use crate::load::{Load, load, percentile};
use crate::watched::Watched;

/// So many instances purge, each with connections of its own.
const INSTANCES: usize = 2;
/// The longest a phase may take until something was purged, and until its purges have ended.
const LIMIT: Duration = Duration::from_secs(60);
/// What a purge that knows no measure asks for.
const MANY: u32 = 500;

pub(crate) fn is_long() -> bool {
    std::env::var_os("MMATE_TEST_LONG").is_some_and(|value| value == "1")
}

pub(crate) struct Sizes {
    rows: u64,
    phase: Duration,
    rounds: usize,
    /// Whether purges may not make claims slower than so many times.
    slower: Option<f64>,
}

impl Sizes {
    pub(crate) fn short() -> Self {
        Self { rows: 20_000, phase: Duration::from_millis(300), rounds: 1, slower: None }
    }

    /// `MMATE_TEST_PURGE_ROWS` says how many rows, if not ten million.
    pub(crate) fn long() -> Self {
        let rows = std::env::var("MMATE_TEST_PURGE_ROWS");
        let rows = rows.map_or(10_000_000, |text| text.parse().unwrap());
        Self { rows, phase: Duration::from_secs(20), rounds: 2, slower: Some(2.0) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purge {
    None,
    /// As every instance does it, but without its long pauses.
    Upkeep,
    /// One batch after the other.
    Unpaced,
}

pub(crate) async fn run(database: &impl Database, sizes: &Sizes) {
    let mut stores = Vec::new();
    for _ in 0..INSTANCES {
        stores.push(Watched::new(database.store().await));
    }
    stores[0].migrate().await.unwrap();
    let began = Instant::now();
    database.fill(sizes.rows).await;
    if is_long() {
        println!("{}: {} rows after {:.0?}", database.name(), sizes.rows, began.elapsed());
    }
    let deadlocks = database.deadlocks().await;
    let mut granted = load(&stores, database, sizes.phase / 4).await.granted;
    let mut idle = Load::default();
    let mut beside = Load::default();
    let turns = [Purge::None, Purge::Upkeep].repeat(sizes.rounds);
    for purge in turns.into_iter().chain([Purge::None, Purge::Unpaced]) {
        let measured = phase(database, &stores, sizes, purge).await;
        granted += measured.granted;
        match purge {
            Purge::None => idle.add(&measured),
            Purge::Upkeep => beside.add(&measured),
            Purge::Unpaced => {}
        }
    }
    assert_eq!(database.deadlocks().await, deadlocks, "deadlocks");
    if let Some(slower) = sizes.slower {
        let (idle, beside) = (percentile(&idle.claims, 99), percentile(&beside.claims, 99));
        let times = beside.as_secs_f64() / idle.as_secs_f64();
        println!("{}: claim p99 {beside:?} beside {idle:?}: {times:.2}", database.name());
        assert!(times <= slower, "{times}");
    } else {
        only_what_is_over_goes(database, &stores, sizes.rows, granted).await;
    }
}

async fn phase(database: &impl Database, stores: &[Watched], sizes: &Sizes, purge: Purge) -> Load {
    let removed = || stores.iter().map(|store| store.removed.load(Ordering::Relaxed)).sum::<u64>();
    let before = removed();
    let purging = start(stores, purge).await;
    let began = Instant::now();
    let mut measured = load(stores, database, sizes.phase).await;
    // A slow machine may need more time for the first purge.
    while purge != Purge::None && removed() == before && began.elapsed() < LIMIT {
        measured.add(&load(stores, database, sizes.phase).await);
    }
    let seconds = began.elapsed().as_secs_f64();
    purging.end(stores).await;
    let removed = removed() - before;
    assert!(stores.iter().all(|store| store.failed.load(Ordering::Relaxed) == 0), "a purge failed");
    assert_eq!(removed > 0, purge != Purge::None, "{removed} were purged: {purge:?}");
    let what = match purge {
        Purge::None => "no purge",
        Purge::Upkeep => "upkeep of two instances",
        Purge::Unpaced => "two instances without pauses",
    };
    let times = |times: &[Duration]| {
        let ms = |percent| percentile(times, percent).as_secs_f64() * 1000.0;
        format!("{:.2} ms | {:.2} ms", ms(50), ms(99))
    };
    if is_long() {
        println!(
            "| {} | {what} | {:.0}/s | {:.0}/s | {} | {} |",
            database.name(),
            removed as f64 / seconds,
            measured.claims.len() as f64 / seconds,
            times(&measured.claims),
            times(&measured.completions),
        );
    }
    measured
}

/// What purges until it is ended.
#[derive(Default)]
struct Purging {
    upkeeps: Vec<Idempotent>,
    tasks: JoinSet<()>,
}

impl Purging {
    /// A purge that is under way may still be counted, but none after this.
    async fn end(self, stores: &[Watched]) {
        drop(self);
        let ended = async {
            while stores.iter().any(Watched::is_used_elsewhere) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(LIMIT, ended).await.expect("purging ends");
    }
}

async fn start(stores: &[Watched], purge: Purge) -> Purging {
    let mut purging = Purging::default();
    for store in stores.iter().cloned() {
        match purge {
            Purge::None => {}
            Purge::Upkeep => {
                let upkeep = Idempotent::new(store).purge_every(Duration::from_millis(1));
                upkeep.prepare().await.unwrap();
                purging.upkeeps.push(upkeep);
            }
            Purge::Unpaced => {
                purging.tasks.spawn(async move { while store.purge(MANY).await.is_ok() {} });
            }
        }
    }
    purging
}

/// Purges to the end, and counts what is left.
async fn only_what_is_over_goes(
    database: &impl Database,
    stores: &[Watched],
    rows: u64,
    granted: u64,
) {
    let all: Vec<Arc<dyn Store>> = stores.iter().map(|s| Arc::new(s.clone()) as _).collect();
    for store in &all {
        while store.purge(MANY).await.unwrap() > 0 {}
    }
    assert_eq!(database.count().await, rows - rows / 2 + granted, "records are left");
}
