//! Traffic with books, to see what a failure does to it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mmate_core::transport::{Connection, QueuePlan, Settlement};
use tokio_util::sync::CancellationToken;

use crate::support::{PATIENCE, broker, connect, event, id_of, until};

/// Publishes and consumes until it is stopped, and keeps the books.
pub(crate) struct Traffic {
    stop: CancellationToken,
    books: Arc<Mutex<Books>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

#[derive(Default)]
struct Books {
    confirmed: HashSet<String>,
    handled: HashSet<String>,
    handlings: usize,
    last_handled: Option<Instant>,
}

impl Traffic {
    pub(crate) async fn start(
        connection: &Arc<dyn Connection>,
        plan: &QueuePlan,
        prefetch: u16,
    ) -> Self {
        let (stop, books) = (CancellationToken::new(), Arc::new(Mutex::new(Books::default())));
        let mut consumer = connection.consume(plan, prefetch).await.unwrap();
        let mut tasks = Vec::new();
        for publisher in 0..20 {
            let (connection, plan) = (Arc::clone(connection), plan.clone());
            let (stop, books) = (stop.clone(), Arc::clone(&books));
            tasks.push(tokio::spawn(async move {
                for n in 0.. {
                    if stop.is_cancelled() {
                        break;
                    }
                    let id = format!("{publisher}/{n}");
                    connection.publish(event(&plan, &id)).await.unwrap();
                    books.lock().unwrap().confirmed.insert(id);
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }));
        }
        let of_consumer = Arc::clone(&books);
        tasks.push(tokio::spawn(async move {
            while let Some(delivery) = consumer.next().await {
                let delivery = delivery.unwrap();
                let id = id_of(&delivery);
                let _ = delivery.settle(Settlement::Ack).await;
                let mut books = of_consumer.lock().unwrap();
                books.handled.insert(id);
                books.handlings += 1;
                books.last_handled = Some(Instant::now());
            }
        }));
        Self { stop, books, tasks }
    }

    /// Enough to have some of everything in flight when something fails.
    pub(crate) async fn run_for_a_while(&self) {
        let before = self.books.lock().unwrap().handlings;
        until("many messages were handled", async || {
            (self.books.lock().unwrap().handlings > before + 300).then_some(())
        })
        .await;
    }

    pub(crate) async fn until_it_flows(&self) {
        let since = Instant::now();
        until("messages are handled", async || {
            self.books.lock().unwrap().last_handled.filter(|last| *last > since)
        })
        .await;
    }

    /// So long after a new client has published, at the latest, messages of ours are handled again. How
    /// fast a new client is shows how busy the machine and the broker are.
    pub(crate) async fn until_it_flows_within(&self, limit: Duration, url: &str, plan: &QueuePlan) {
        let begin = Instant::now();
        let newcoming = async {
            let newcomer = connect(broker(url)).await;
            newcomer.publish(event(plan, "newcomer")).await.unwrap();
            let ready = begin.elapsed();
            newcomer.close().await;
            ready
        };
        let flowing = async {
            self.until_it_flows().await;
            begin.elapsed()
        };
        let (ready, flows) = tokio::join!(newcoming, flowing);
        println!("a new client publishes after {ready:?}, messages flow after {flows:?}");
        assert!(flows.saturating_sub(ready) < limit, "{flows:?}, a new client: {ready:?}");
    }

    /// Everything that was confirmed is handled.
    pub(crate) async fn settle_up(self, connection: &dyn Connection) -> String {
        self.stop.cancel();
        let (mut tasks, books) = (self.tasks, self.books);
        let consuming = tasks.pop().unwrap();
        for publishing in tasks {
            tokio::time::timeout(PATIENCE, publishing).await.unwrap().unwrap();
        }
        until("everything confirmed is handled", async || {
            let books = books.lock().unwrap();
            books.confirmed.is_subset(&books.handled).then_some(())
        })
        .await;
        connection.close().await;
        tokio::time::timeout(PATIENCE, consuming).await.unwrap().unwrap();
        let books = books.lock().unwrap();
        let (confirmed, handlings) = (books.confirmed.len(), books.handlings);
        format!("{confirmed} confirmed, 0 of them lost, {handlings} handlings")
    }
}
