//! One cell, from the first message to the verdict.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant};

use mmate_amqp::Amqp;
use mmate_core::message::wire::dead_letter_queue;
use mmate_core::{Outgoing, Publisher};
use mmate_idempotency::protocol::Claim;
use mmate_idempotency::store::{ClaimRequest, Claimant, RecordKey};
use tempfile::TempDir;
use tokio::time::timeout;

use super::cell::{Cell, Fault, Guard, Records};
use super::inside::overlaps;
use super::instance::{Instance, PATIENCE};
use super::observed::Observed;
use super::place::{Effect, Place, Servers};
use super::role::{Defect, LEASE, PREFIX, Role, SUBSCRIPTION};
use super::rules::expected;
use crate::books::Books;
use crate::measure::within;
use crate::witness::Witness;

/// Where cells are run.
#[derive(Debug)]
pub struct Stage {
    program: PathBuf,
    servers: Servers,
    name: String,
    folder: TempDir,
    defect: Option<Defect>,
}

/// How many messages there are in a cell. Each is published twice.
const MESSAGES: usize = 12;

/// After this long without the fault more are published.
const MORE_AFTER: Duration = Duration::from_secs(5);

/// After this long without anything in a queue or in hand, what had no effect will have none.
const QUIET: Duration = Duration::from_secs(4);

/// The steps of the delays that a deferred message may wait in.
const DELAYS: [u32; 7] = [100, 250, 500, 1_000, 2_000, 5_000, 10_000];

impl Stage {
    /// On these servers, with this binary (`crash-consumer`, which cargo names to its tests only), under a name that
    /// is nobody else's.
    ///
    /// # Panics
    /// If there is no place for files, as does everything here when something fails.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, servers: Servers, name: String) -> Self {
        let folder = TempDir::new().unwrap();
        Self { program: program.into(), servers, name, folder, defect: None }
    }

    /// With a defect that a cell must fail on.
    #[must_use]
    pub fn with(mut self, defect: Defect) -> Self {
        self.defect = Some(defect);
        self
    }

    /// Runs a cell. `number` tells it from others of this stage.
    #[expect(clippy::missing_panics_doc, reason = "as told above")]
    pub async fn run(&self, number: usize, cell: Cell) -> Observed {
        let service = format!("{}_{number}", self.name);
        let place =
            Place::make(service.clone(), self.folder.path(), cell.guard, &self.servers).await;
        let mut role = Role {
            service: service.clone(),
            instance: "a".to_owned(),
            amqp: self.servers.amqp.clone(),
            guard: cell.guard,
            place,
            fault: None,
            defect: self.defect,
        };
        let log = self.folder.path().join(format!("{service}.log"));
        let witness = Witness::at(&self.servers.amqp).await;
        let mut other = Instance::start(&self.program, &role, &log).await;
        role.instance = "b".to_owned();
        role.fault = Some((cell.boundary, cell.fault));
        let mut doomed = Instance::start(&self.program, &role, &log).await;

        let mut books = Books::default();
        let publisher = Publisher::connect(&Amqp::new(&role.amqp), "matrix").await.unwrap();
        let struck = {
            let mut striking = pin!(doomed.struck());
            let mut round = 0;
            loop {
                publish(&publisher, &role, round, &mut books).await;
                // The other one may have had nearly all of them.
                match timeout(MORE_AFTER, &mut striking).await {
                    Ok(struck) => break struck,
                    Err(_) => round += 1,
                }
            }
        };
        publisher.close().await;
        match cell.fault {
            Fault::Abort => {
                assert!(!doomed.ended().await.success());
                role.instance = "c".to_owned();
                role.fault = None;
                doomed = Instance::start(&self.program, &role, &log).await;
            }
            Fault::Delayed => {
                tokio::time::sleep(LEASE + LEASE / 2).await;
                doomed.signal("CONT").await;
            }
            Fault::Error | Fault::Lost => {}
        }
        let queue = format!("{service}.{SUBSCRIPTION}");
        let effects = settle(&role, &books, &witness, &queue, [&mut other, &mut doomed]).await;
        let is_conserved = other.stop().await & doomed.stop().await;
        let overlaps = overlaps(cell, "b", &role.place.visits().await);
        let mut observed = Observed {
            cell,
            expected: expected(cell),
            verdict: books
                .judge(&counts(&effects), &witness.take_all(&dead_letter_queue(&queue)).await),
            stuck: stuck(&role, &books).await,
            overlaps: overlaps.wrong,
            is_overtaken: overlaps.is_overtaken,
            struck,
            is_conserved,
            history: Vec::new(),
        };
        for name in queues(&queue) {
            let left = witness.ready(&name).await;
            if left > 0 {
                observed.verdict.left.push((name.clone(), left));
            }
            witness.delete(&name).await;
        }
        role.place.remove(cell.guard).await;
        if !observed.is_right() {
            observed.history =
                history(&observed, &effects, &std::fs::read_to_string(&log).unwrap());
        }
        observed
    }
}

/// Each message, and then each once more. In memory nobody knows the copies that another process had, so there are none.
async fn publish(publisher: &Publisher, role: &Role, round: usize, books: &mut Books) {
    let copies = if role.guard == Guard::Tracked(Records::Memory) { 1 } else { 2 };
    for n in (0..copies).flat_map(|_| 0..MESSAGES) {
        let id = format!("{PREFIX}{round}{n:02}");
        books.attempt(&id);
        let message = Outgoing::event(role.topic(), "Thing", &n).id_text(&id);
        publisher.publish(message).await.unwrap();
        books.confirm(&id);
    }
}

fn queues(queue: &str) -> impl Iterator<Item = String> {
    let delays = DELAYS.map(|millis| format!("{queue}.delay.{millis}"));
    [queue.to_owned(), dead_letter_queue(queue)].into_iter().chain(delays)
}

/// Waits until every message had its effect and nothing is in a queue or in hand; or until nothing has been for so long
/// that what had none will have none.
async fn settle(
    role: &Role,
    books: &Books,
    witness: &Witness,
    queue: &str,
    mut instances: [&mut Instance; 2],
) -> Vec<Effect> {
    let mut quiet_since: Option<Instant> = None;
    let mut looks = 0;
    let settled = within(PATIENCE, "everything is handled", async || {
        let mut at_work = 0;
        for instance in &mut instances {
            at_work += instance.in_flight().await;
        }
        for name in queues(queue) {
            if name != dead_letter_queue(queue) {
                at_work += u64::from(witness.ready(&name).await);
            }
        }
        if at_work > 0 {
            (quiet_since, looks) = (None, 0);
            return None;
        }
        looks += 1;
        let quiet = quiet_since.get_or_insert_with(Instant::now).elapsed();
        let effects = role.place.effects(role.guard).await;
        let is_over = looks > 3 && books.has_all(&counts(&effects)) || quiet > QUIET;
        is_over.then_some(effects)
    });
    settled.await
}

fn counts(effects: &[Effect]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for effect in effects {
        *counts.entry(effect.id.clone()).or_default() += 1;
    }
    counts
}

/// What is not done, as the store says when it is asked for it once more.
async fn stuck(role: &Role, books: &Books) -> Vec<String> {
    // What was in memory is gone.
    if role.guard == Guard::Tracked(Records::Memory) {
        return Vec::new();
    }
    let store = role.place.store(role.guard).await;
    let scope = format!("{}/{SUBSCRIPTION}", role.service);
    let mut stuck = Vec::new();
    for id in books.owed() {
        let key = RecordKey::new(scope.as_str(), id).unwrap();
        let request = ClaimRequest::new(key, Claimant::default(), LEASE);
        if !matches!(store.claim(&request).await.unwrap(), Claim::Duplicate(_)) {
            stuck.push(id.clone());
        }
    }
    stuck
}

/// The effects and the log of what came out wrong.
fn history(observed: &Observed, effects: &[Effect], log: &str) -> Vec<String> {
    let mut history = vec![format!("struck: {:?}", observed.struck)];
    for id in observed.offending() {
        let of_it = effects.iter().filter(|effect| effect.id == *id);
        history.extend(of_it.map(|effect| format!("{effect:?}")));
        history.extend(log.lines().filter(|line| line.contains(id.as_str())).map(str::to_owned));
    }
    history
}
