//! Messages that are published all the time.

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mmate_amqp::Amqp;
use mmate_core::{Outgoing, Publisher};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::books::Books;
use crate::measure::until;
use crate::shop::Order;

/// Publishes orders until it is stopped, and keeps the books.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    publisher: Publisher,
    topic: String,
    next: AtomicI64,
    on_their_way: AtomicUsize,
    books: Mutex<Books>,
    stop: CancellationToken,
    pause: watch::Sender<bool>,
}

/// So many publish at a time, each with a pause after each message.
const PUBLISHERS: usize = 8;
const PAUSE: Duration = Duration::from_millis(120);

impl Load {
    /// Publishes orders under this topic, some sixty a second.
    ///
    /// # Panics
    /// If the broker refuses the connection.
    pub async fn start(broker: &Amqp, topic: &str) -> Self {
        let shared = Arc::new(Shared {
            publisher: Publisher::connect(broker, "load").await.unwrap(),
            topic: topic.to_owned(),
            next: AtomicI64::new(0),
            on_their_way: AtomicUsize::new(0),
            books: Mutex::default(),
            stop: CancellationToken::new(),
            pause: watch::Sender::new(false),
        });
        let publish = |shared: Arc<Shared>| async move {
            let mut paused = shared.pause.subscribe();
            while !shared.stop.is_cancelled() {
                // The sender is in the same place, and not dropped.
                let _ = paused.wait_for(|paused| !paused).await;
                shared.on_their_way.fetch_add(1, Ordering::SeqCst);
                if !*paused.borrow() && !shared.stop.is_cancelled() {
                    shared.publish(shared.order()).await;
                }
                shared.on_their_way.fetch_sub(1, Ordering::SeqCst);
                tokio::time::sleep(PAUSE).await;
            }
        };
        let tasks = (0..PUBLISHERS).map(|_| tokio::spawn(publish(Arc::clone(&shared)))).collect();
        Self { shared, tasks }
    }

    /// The number of the next order: what comes from now on has this one or a higher one.
    #[must_use]
    pub fn mark(&self) -> i64 {
        self.shared.next.load(Ordering::SeqCst)
    }

    /// Publishes nothing from now on, and returns when it is known what became of everything.
    pub async fn pause(&self) {
        self.shared.pause.send_replace(true);
        until("no publish is on its way", async || {
            (self.shared.on_their_way.load(Ordering::SeqCst) == 0).then_some(())
        })
        .await;
    }

    /// Publishes again.
    pub fn go_on(&self) {
        self.shared.pause.send_replace(false);
    }

    /// Publishes one more order, as it is but for its number. Returns whether it was confirmed.
    pub async fn publish(&self, order: Order) -> bool {
        let Order { seq, .. } = self.shared.order();
        self.shared.publish(Order { seq, ..order }).await
    }

    /// Publishes that many more orders at once.
    ///
    /// # Panics
    /// If one of them is not confirmed.
    pub async fn burst(&self, orders: usize) {
        let publish = |shared: Arc<Shared>| async move { shared.publish(shared.order()).await };
        let burst: JoinSet<_> = (0..orders).map(|_| publish(Arc::clone(&self.shared))).collect();
        assert!(burst.join_all().await.into_iter().all(|confirmed| confirmed));
    }

    /// The books so far.
    ///
    /// # Panics
    /// If a publisher did.
    #[must_use]
    pub fn books(&self) -> Books {
        self.shared.books.lock().unwrap().clone()
    }

    /// Notes what is published by other ways.
    ///
    /// # Panics
    /// If a publisher did.
    pub fn note(&self, note: impl FnOnce(&mut Books)) {
        note(&mut self.shared.books.lock().unwrap());
    }

    /// Stops, when what is on its way is confirmed or given up, and returns the books.
    ///
    /// # Panics
    /// If that takes longer than a publish may.
    pub async fn stop(self) -> Books {
        self.shared.stop.cancel();
        self.go_on();
        for task in self.tasks {
            tokio::time::timeout(Duration::from_secs(60), task).await.unwrap().unwrap();
        }
        self.shared.publisher.close().await;
        self.shared.books.lock().unwrap().clone()
    }
}

impl Shared {
    fn order(&self) -> Order {
        Order::number(self.next.fetch_add(1, Ordering::SeqCst))
    }

    async fn publish(&self, order: Order) -> bool {
        let id = order.seq.to_string();
        {
            let mut books = self.books.lock().unwrap();
            books.attempt(&id);
        }
        let message = Outgoing::event(&self.topic, "OrderPlaced", &order).id_text(&id);
        let published = self.publisher.publish(message).await;
        let mut books = self.books.lock().unwrap();
        match &published {
            Ok(_) if order.is_poison => books.poison(&id),
            Ok(_) => books.confirm(&id),
            Err(_) => {}
        }
        published.is_ok()
    }
}
