//! Publishing, with the books kept.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mmate_amqp::Amqp;
use mmate_core::checker::{Event, Journal, What};
use mmate_core::{Outgoing, Publisher};
use tokio::sync::{RwLock, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::consumer::Order;
use super::plan::{POISON_EVERY, Plan};

/// Publishes all messages of a plan, as fast as `allowed` says.
pub(super) struct Publishing {
    pub(super) plan: Plan,
    pub(super) journal: Journal,
    pub(super) publisher: Publisher,
    /// The first message of this part; a multiple of the lanes.
    pub(super) first: u64,
    /// How many messages may be published by now; nothing more once its other end is gone.
    pub(super) allowed: watch::Receiver<u64>,
    pub(super) confirmed: AtomicU64,
    /// Read while something is on its way.
    pub(super) publishing: Arc<RwLock<()>>,
}

/// So many are published at a time. Those of one key are published one after another, so this divides the keys.
pub(super) const LANES: u64 = 200;
const PAUSE: Duration = Duration::from_millis(100);

impl Publishing {
    pub(super) async fn connect(
        amqp: &str,
    ) -> Result<Publisher, mmate_core::transport::TransportError> {
        Publisher::connect(&Amqp::new(amqp), "soak-publisher").await
    }

    /// Returns when each message is confirmed, and each duplicate too.
    pub(super) async fn run(self: Arc<Self>) {
        let publish = |lane| {
            let this = Arc::clone(&self);
            async move { this.lane(lane).await }
        };
        let lanes: JoinSet<()> = (0..LANES).map(publish).collect();
        lanes.join_all().await;
    }

    async fn lane(&self, lane: u64) {
        let mut allowed = self.allowed.clone();
        let mut chance = fastrand::Rng::with_seed(self.plan.seed.wrapping_mul(1_000_003) + lane);
        let mut again: BinaryHeap<Reverse<(Instant, u64)>> = BinaryHeap::new();
        let mut number = self.first + lane;
        loop {
            let due = again.peek().map(|Reverse((due, _))| *due);
            let is_left = number < self.plan.messages;
            tokio::select! {
                biased;
                () = reached(due), if due.is_some() => {
                    if let Some(Reverse((_, duplicate))) = again.pop() {
                        self.publish(duplicate).await;
                    }
                }
                is_allowed = reaches(&mut allowed, number), if is_left => {
                    if !is_allowed {
                        return;
                    }
                    self.publish(number).await;
                    self.confirmed.fetch_add(1, Ordering::Relaxed);
                    if chance.f64() < self.plan.duplicates {
                        let delay = self.plan.longest_delay().mul_f64(chance.f64());
                        again.push(Reverse((Instant::now() + delay, number)));
                    }
                    number += LANES;
                }
                else => return,
            }
        }
    }

    /// Publishes until it is confirmed.
    async fn publish(&self, number: u64) {
        let (id, key) = (format!("m{number}"), format!("k{}", number % self.plan.keys));
        let seq = number / self.plan.keys;
        let is_poison = number % POISON_EVERY == POISON_EVERY - 1;
        let topic = format!("soak.order.{key}");
        let order = Order { key: key.clone(), seq, is_poison };
        self.note(&Event::attempted(&*id));
        if is_poison {
            self.note(&Event::now(What::Poison, &*id));
        }
        loop {
            let message = Outgoing::event(&topic, "OrderPlaced", &order).id_text(&id);
            let on_its_way = self.publishing.read().await;
            if self.publisher.publish(message).await.is_ok() {
                return self.note(&Event::confirmed(id));
            }
            drop(on_its_way);
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn note(&self, event: &Event) {
        self.journal.note(event).unwrap();
    }
}

/// Whether it ever comes to more than this.
async fn reaches(allowed: &mut watch::Receiver<u64>, number: u64) -> bool {
    allowed.wait_for(|allowed| *allowed > number).await.is_ok()
}

async fn reached(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
