//! Everything in one process: a producer, its listeners, and events for them.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusHandle;
use mmate_core::{MessageId, shutdown_signal};
use mmate_examples::program::{ANY_PORT, Failure, listen};
use mmate_examples::{monitor, stores};
use mmate_idempotency::store::Store;
use serde_json::value::to_raw_value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::database::Database;
use crate::event::Event;
use crate::listener::{Counters, Listener};
use crate::options::{DemoOptions, ListenerOptions, ProducerOptions};
use crate::producer::Producer;
use crate::tally;

/// Every how many events one is published a second time.
const REPEATED: u32 = 4;

/// How long nothing may happen before what is missing counts as lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// What runs.
struct Demo {
    _folder: TempDir,
    database: Database,
    producer: Producer,
    address: SocketAddr,
    listeners: Vec<(String, Counters, SocketAddr)>,
    tasks: JoinSet<Result<(), Failure>>,
    stop: CancellationToken,
}

/// Whether each event was stored once.
pub(crate) async fn run(options: DemoOptions) -> Result<bool, Failure> {
    let metrics = monitor::collect()?;
    tally::describe();
    let mut demo = Demo::start(&options, &metrics).await?;
    let is_clean = tokio::select! {
        is_clean = demo.show(&options) => is_clean?,
        () = shutdown_signal() => return Err("interrupted".into()),
    };
    if options.stay {
        println!("\nhttp://{}/publish", demo.address);
        for (name, _, address) in &demo.listeners {
            println!("http://{address}/api/events  {name}");
        }
        shutdown_signal().await;
    }
    demo.stop.cancel();
    while let Some(ended) = demo.tasks.join_next().await {
        ended??;
    }
    demo.producer.close().await;
    demo.database.close().await;
    Ok(is_clean)
}

impl Demo {
    async fn start(options: &DemoOptions, metrics: &PrometheusHandle) -> Result<Self, Failure> {
        let folder = TempDir::new()?;
        let in_folder = |name: &str| format!("sqlite:{}", folder.path().join(name).display());
        let database = options.database.clone().unwrap_or_else(|| in_folder("events.db"));
        let http = listen(ANY_PORT).await?;
        let producer = Producer::open(&ProducerOptions {
            listen: ANY_PORT,
            journal: folder.path().join("journal.db"),
            keep: u32::MAX,
            broker: options.broker.clone(),
        })
        .await?;
        let mut demo = Self {
            database: Database::open(&database)?,
            address: http.local_addr()?,
            producer,
            listeners: Vec::new(),
            tasks: JoinSet::new(),
            stop: CancellationToken::new(),
            _folder: folder,
        };
        let pages = demo.producer.pages(metrics.clone());
        demo.serve(http, pages);
        let store = stores::open(&options.store).await?;
        for number in 1..=options.listeners {
            let listener = ListenerOptions {
                instance_id: format!("listener-{number}"),
                listen: ANY_PORT,
                producer: format!("ws://{}/listen", demo.address),
                database: database.clone(),
                store: options.store.clone(),
                work: options.work.clone(),
                broker: options.broker.clone(),
            };
            demo.listen(listener, Arc::clone(&store), metrics).await?;
        }
        Ok(demo)
    }

    /// Starts a listener, with pages of its own.
    async fn listen(
        &mut self,
        options: ListenerOptions,
        store: Arc<dyn Store>,
        metrics: &PrometheusHandle,
    ) -> Result<(), Failure> {
        let listener = Listener::open(&options, Database::open(&options.database)?, store).await?;
        let http = listen(ANY_PORT).await?;
        self.listeners.push((options.instance_id, listener.counters(), http.local_addr()?));
        self.serve(http, listener.pages(metrics.clone()));
        self.tasks.spawn(listener.run(self.stop.clone()));
        Ok(())
    }

    fn serve(&mut self, http: TcpListener, pages: axum::Router) {
        let stopped = self.stop.clone().cancelled_owned();
        self.tasks.spawn(async move { Ok(monitor::serve(http, pages, stopped).await?) });
    }

    /// Publishes, waits until every listener has done with everything, and prints what became of it.
    async fn show(&self, options: &DemoOptions) -> Result<bool, Failure> {
        let before = self.database.count().await?;
        let mut published = 0;
        for number in 1..=options.events {
            let payload = serde_json::json!({"order": number, "cents": 100 * number});
            let event = Event { event_id: MessageId::generate(), payload: to_raw_value(&payload)? };
            let copies = if number % REPEATED == 0 { 2 } else { 1 };
            for _ in 0..copies {
                self.producer.publish(&event).await?;
                published += 1;
            }
        }
        self.wait_until_heard(published).await;
        let stored = self.database.count().await? - before;
        print!("{}", self.table(published, options.events, stored));
        let of_listeners = self.listeners.iter().map(|(_, counters, _)| counters.now());
        let all_heard = of_listeners.clone().all(|counts| counts.heard() >= published);
        let stored_by_them: u64 = of_listeners.map(|counts| counts.stored).sum();
        let events = u64::from(options.events);
        Ok(all_heard && stored_by_them == events && stored == i64::from(options.events))
    }

    /// Or until nothing has happened for a long time.
    async fn wait_until_heard(&self, published: u64) {
        let heard = || self.listeners.iter().map(|(_, counters, _)| counters.now().heard());
        let (mut last, mut since) = (0, Instant::now());
        while heard().any(|heard| heard < published) && since.elapsed() < PATIENCE {
            let sum = heard().sum();
            if sum != last {
                (last, since) = (sum, Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn table(&self, published: u64, different: u32, stored: i64) -> String {
        let mut table = String::new();
        // Writing into a String cannot fail.
        let _ = writeln!(table, "published {published} events, {different} different ones\n");
        let _ = writeln!(
            table,
            "{:<12} {:>7} {:>7} {:>10}",
            "listener", "heard", "stored", "duplicates"
        );
        for (name, counters, _) in &self.listeners {
            let counts = counters.now();
            let (heard, stored, duplicates) = (counts.heard(), counts.stored, counts.duplicates);
            let _ = writeln!(table, "{name:<12} {heard:>7} {stored:>7} {duplicates:>10}");
        }
        let _ = writeln!(table, "{:<12} {:>7} {stored:>7}", "database", "");
        table
    }
}
