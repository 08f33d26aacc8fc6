//! What all tests have in common.

use std::time::{Duration, Instant};

use mmate_amqp::Amqp;
use mmate_core::Running;
use tempfile::TempDir;

use crate::books::{Books, Verdict};
use crate::effects::Effects;
use crate::load::Load;
use crate::log;
use crate::measure::{until, within};
use crate::shop::{ORDERS, Order, Report, Shop};
use crate::witness::Witness;

/// A service with a database of its own, on a broker.
#[derive(Debug)]
pub struct Scene {
    /// The service; what is changed here holds for what is started afterwards.
    pub shop: Shop,
    /// The effects.
    pub effects: Effects,
    /// The broker without any proxy.
    direct_url: String,
    _folder: TempDir,
}

impl Scene {
    /// A service under this name, which must be nobody else's. It reaches the broker by `url`, and this test does by
    /// `direct_url`.
    ///
    /// # Panics
    /// If there is no database, as does everything here when something fails.
    pub async fn new(service: String, url: &str, direct_url: &str) -> Self {
        log::keep();
        let folder = TempDir::new().unwrap();
        let database = folder.path().join("effects.db");
        let effects = Effects::open(&database).await;
        let shop = Shop::new(service, url.to_owned(), database);
        Self { shop, effects, direct_url: direct_url.to_owned(), _folder: folder }
    }

    /// Publishes orders, by the way that the service takes too.
    pub async fn load(&self) -> Load {
        let broker = Amqp::new(&self.shop.url)
            .heartbeat(self.shop.heartbeat)
            .answer_timeout(self.shop.answer_timeout);
        Load::start(&broker, &self.shop.topic()).await
    }

    /// Publishes orders to the broker directly.
    pub async fn load_from_elsewhere(&self) -> Load {
        Load::start(&Amqp::new(&self.direct_url), &self.shop.topic()).await
    }

    /// Waits until so many more effects are there, so that there is some of everything in flight.
    pub async fn flow(&self, effects: u64) {
        let before = self.effects.count().await;
        until("orders take effect", async || {
            (self.effects.count().await >= before + effects).then_some(())
        })
        .await;
    }

    /// How long it takes from `since` until an order that is published from now on has its effect.
    pub async fn flows_again(&self, load: &Load, since: Instant) -> Duration {
        let mark = load.mark();
        let publishing = async {
            // The others may still be busy with what they began before.
            while !load.publish(Order::default()).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let taking_effect =
            until("messages flow again", async || self.effects.any_from(mark).await.then_some(()));
        tokio::join!(publishing, async {
            taking_effect.await;
            since.elapsed()
        })
        .1
    }

    /// Ends the load, and waits until everything that was confirmed had its effect and the queue is empty.
    pub async fn settle_up(&self, load: Load) -> Books {
        let books = load.stop().await;
        until("everything confirmed has its effect", async || {
            let effects = self.effects.of(ORDERS).await;
            books.has_all(&effects).then_some(())
        })
        .await;
        books
    }

    /// Ends the service in good order, after what the broker shows again was acknowledged.
    #[expect(clippy::missing_panics_doc, reason = "as told above")]
    pub async fn stop(&self, running: Running) -> Report {
        let witness = Witness::at(&self.direct_url).await;
        let stats = running.stats().clone();
        until("the queue is empty", async || {
            let idle = stats.total().in_flight == 0;
            (witness.ready(&self.shop.queue()).await == 0 && idle).then_some(())
        })
        .await;
        running.stop().await.unwrap();
        let report = Report::from(stats.total());
        assert!(report.is_conserved, "{:?}", stats.total());
        report
    }

    /// Compares the books with the effects and with what is on the broker, when the service has ended.
    pub async fn judge(&self, books: &Books) -> Verdict {
        let (witness, queue) = (Witness::at(&self.direct_url).await, self.shop.queue());
        // What was unsettled is back in the queue a moment after its connection has ended.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let parked = witness.take_all(&mmate_core::message::wire::dead_letter_queue(&queue)).await;
        let mut verdict = books.judge(&self.effects.of(ORDERS).await, &parked);
        let delays = [100, 250, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 300_000];
        let delays = delays.map(|millis| format!("{queue}.delay.{millis}"));
        for name in [queue].into_iter().chain(delays) {
            let left = witness.ready(&name).await;
            if left > 0 {
                verdict.left.push((name, left));
            }
        }
        verdict
    }

    /// All of it: settles up, stops, judges.
    pub async fn end(&self, fault: &str, load: Load, running: Running) -> Report {
        let books = self.settle_up(load).await;
        let report = self.stop(running).await;
        self.judge(&books).await.must_be_clean(fault);
        println!("{fault}: {report:?}");
        report
    }

    /// Waits until the queue of orders is as long as that.
    pub async fn until_ready(&self, count: u32) {
        let witness = Witness::at(&self.direct_url).await;
        within(Duration::from_secs(30), &format!("{count} orders are ready"), async || {
            (witness.ready(&self.shop.queue()).await == count).then_some(())
        })
        .await;
    }

    /// A client of the broker that is not ours.
    pub async fn witness(&self) -> Witness {
        Witness::at(&self.direct_url).await
    }
}
