//! Heartbeats for all claims that are held.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::alarm::Alarm;
use crate::protocol::Held;
use crate::store::{Lost, Permit, Store, StoreError};

/// Prolongs the leases of all claims that a strategy (or an `Idempotent`) holds, from one task of its own, so that a
/// handler which blocks its thread keeps its lease (unless that is the runtime's only one). A
/// handler that is done within a third of its lease costs no heartbeat.
///
/// The task wakes up by itself, often enough to find a claim before its heartbeat is due. A handler
/// that woke it would put it into a queue of its own thread, from where nobody takes it while the
/// handler blocks. Where the runtime's timers stand still because a handler blocks, the [`Alarm`] wakes
/// it.
pub(super) struct Keeper {
    store: Arc<dyn Store>,
    registry: Mutex<Registry>,
    alarm: Arc<Alarm>,
}

#[derive(Default)]
struct Registry {
    next: u64,
    /// By number. There are as many as handlers at work, so a list is searched fast enough.
    claims: Vec<(u64, Entry)>,
    task: Option<JoinHandle<()>>,
    /// The shortest lease there may be.
    shortest: Option<Duration>,
}

impl Registry {
    fn find(&mut self, id: u64) -> Option<&mut Entry> {
        let found = self.claims.iter_mut().rev().find(|(had, _)| *had == id);
        found.map(|(_, entry)| entry)
    }

    fn remove(&mut self, id: u64) {
        if let Some(at) = self.claims.iter().rposition(|(had, _)| *had == id) {
            self.claims.swap_remove(at);
        }
    }
}

struct Entry {
    permit: Permit,
    lease: Duration,
    /// When the next heartbeat is due.
    due: Instant,
    /// When the lease ends, if no heartbeat succeeds before; by this process's clock, counted from
    /// before the store was asked, so never later than by the store's.
    ends: Instant,
    beating: bool,
    lost: Arc<Lost>,
}

/// What a heartbeat is to be sent for.
struct Beat {
    id: u64,
    permit: Permit,
    lease: Duration,
    /// How long it may take.
    limit: Duration,
}

/// What came of it.
struct Beaten {
    id: u64,
    asked: Instant,
    answer: Result<Held, String>,
}

impl Keeper {
    pub(super) fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { store, registry: Mutex::default(), alarm: Alarm::new() })
    }

    /// Makes ready for claims with this lease.
    pub(super) fn start(self: &Arc<Self>, lease: Duration) {
        let mut registry = self.registry();
        let shortest = registry.shortest.map_or(lease, |shortest| shortest.min(lease));
        registry.shortest = Some(shortest);
        self.run(&mut registry);
        drop(registry);
        self.alarm.start();
        self.alarm.ring();
    }

    /// Sees that the task runs. A runtime that ended took it with it.
    fn run(self: &Arc<Self>, registry: &mut Registry) {
        if registry.task.as_ref().is_none_or(JoinHandle::is_finished) {
            registry.task = Some(tokio::spawn(keep(Arc::downgrade(self))));
        }
    }

    /// Keeps a claim alive that was asked for at `asked`. Returns its number here, and what tells
    /// that it is lost.
    pub(super) fn hold(
        self: &Arc<Self>,
        permit: Permit,
        lease: Duration,
        asked: Instant,
    ) -> (u64, Arc<Lost>) {
        let lost = Arc::new(Lost::default());
        let entry = Entry {
            permit,
            lease,
            due: asked + lease / 3,
            ends: asked + lease,
            beating: false,
            lost: Arc::clone(&lost),
        };
        let due = entry.due;
        let mut registry = self.registry();
        let id = registry.next;
        registry.next += 1;
        registry.claims.push((id, entry));
        self.run(&mut registry);
        drop(registry);
        self.alarm.set_back_to(due);
        (id, lost)
    }

    /// Lets a claim alone from now on.
    pub(super) fn let_go(&self, id: u64) {
        self.registry().remove(id);
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        // Nothing panics while the lock is held.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The heartbeats that are due, and when to look again. Leases that are over are lost, and
    /// looked at no more.
    fn look(&self, now: Instant) -> (Vec<Beat>, Instant) {
        let mut beats = Vec::new();
        let mut registry = self.registry();
        let mut wake = now + registry.shortest.map_or(IDLE, |lease| lease / 6).min(IDLE);
        registry.claims.retain_mut(|(id, entry)| {
            if entry.ends <= now {
                entry.lost.set();
                return false;
            }
            if entry.due <= now && !entry.beating {
                entry.beating = true;
                beats.push(Beat {
                    id: *id,
                    permit: entry.permit.clone(),
                    lease: entry.lease,
                    // One that hangs leaves time for another.
                    limit: (entry.lease / 3).min(entry.ends - now),
                });
            }
            wake = wake.min(if entry.beating { entry.ends } else { entry.due });
            true
        });
        self.alarm.set_to(wake);
        (beats, wake)
    }

    fn beaten(&self, beaten: Beaten) {
        let now = Instant::now();
        let mut registry = self.registry();
        // It may be finished by now.
        let Some(entry) = registry.find(beaten.id) else { return };
        entry.beating = false;
        match beaten.answer {
            Ok(Held::Yes) => {
                entry.ends = beaten.asked + entry.lease;
                entry.due = beaten.asked + entry.lease / 3;
            }
            Ok(Held::Refused) => {
                entry.lost.set();
                registry.remove(beaten.id);
            }
            Err(error) => {
                let pause = (entry.lease / 10).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
                entry.due = now + pause.mul_f64(1.0 - 0.5 * fastrand::f64());
                tracing::debug!(key = ?entry.permit.key(), error, "a heartbeat failed; it is repeated");
            }
        }
    }
}

/// How long the task sleeps at most.
const IDLE: Duration = Duration::from_secs(10);
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.alarm.ring();
    }
}

/// The task. It ends with the strategy.
async fn keep(keeper: Weak<Keeper>) {
    let mut beats = FuturesUnordered::new();
    loop {
        let Some(strong) = keeper.upgrade() else { return };
        let (due, wake) = strong.look(Instant::now());
        beats.extend(due.into_iter().map(|one| beat(Arc::clone(&strong.store), one)));
        let alarm = Arc::clone(&strong.alarm);
        // It sleeps without keeping the strategy alive.
        drop(strong);
        tokio::select! {
            Some(beaten) = beats.next(), if !beats.is_empty() => {
                if let Some(strong) = keeper.upgrade() {
                    strong.beaten(beaten);
                }
            }
            () = alarm.rung() => {}
            () = sleep_until(wake) => {}
        }
    }
}

async fn beat(store: Arc<dyn Store>, beat: Beat) -> Beaten {
    let asked = Instant::now();
    let answer = match timeout(beat.limit, store.heartbeat(&beat.permit, beat.lease)).await {
        Ok(answer) => answer.map_err(|error: StoreError| mmate_core::error_chain(&error)),
        Err(_) => Err(format!("no answer within {:?}", beat.limit)),
    };
    Beaten { id: beat.id, asked, answer }
}
