//! A listener: hears events, processes those that no other one has, and shows what is stored.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use mmate_amqp::Amqp;
use mmate_core::health::StatusCell;
use mmate_core::{Health, HealthReport, Running, Stats, error_chain};
use mmate_examples::monitor;
use mmate_examples::program::{Failure, refusal};
use mmate_idempotency::store::Store;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::database::{Database, Stored};
use crate::inbox::Inbox;
use crate::options::ListenerOptions;
use crate::processor::{Processor, Worker};
use crate::rabbit;
use crate::tally::{Outcome, Tally};

/// How many events a page has at most, and how many by default.
const LARGEST_PAGE: u16 = 1_000;
const PAGE: u16 = 100;

pub(crate) struct Listener {
    database: Database,
    tally: Arc<Tally>,
    hearing: Hearing,
}

/// How the events come.
enum Hearing {
    Producer { inbox: Inbox, processor: Arc<Processor> },
    Broker(Running),
}

/// What the counts are at a moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) stored: u64,
    pub(crate) duplicates: u64,
    pub(crate) conflicts: u64,
}

/// Where they are counted: over RabbitMQ by mmate, but for what is stored.
pub(crate) struct Counters {
    tally: Arc<Tally>,
    broker: Option<Stats>,
}

impl Counters {
    pub(crate) fn now(&self) -> Counts {
        let stored = self.tally.of(Outcome::Stored);
        match &self.broker {
            None => Counts {
                stored,
                duplicates: self.tally.of(Outcome::Duplicate),
                conflicts: self.tally.of(Outcome::Conflict),
            },
            Some(stats) => {
                let total = stats.total();
                let again = total.succeeded.saturating_sub(stored);
                let duplicates = total.duplicates.total() + again;
                Counts { stored, duplicates, conflicts: total.conflicts }
            }
        }
    }
}

impl Counts {
    /// How many events came and were done with.
    pub(crate) fn heard(&self) -> u64 {
        self.stored + self.duplicates + self.conflicts
    }
}

impl Listener {
    pub(crate) async fn open(
        options: &ListenerOptions,
        database: Database,
        store: Arc<dyn Store>,
    ) -> Result<Self, Failure> {
        let worker = Worker {
            database: database.clone(),
            listener: options.instance_id.as_str().into(),
            takes: options.work.work_takes(),
        };
        match &options.broker {
            None => {
                let processor = Arc::new(Processor::new(worker, store, &options.work));
                let tally = Arc::clone(&processor.tally);
                let (url, listener) = (&options.producer, &options.instance_id);
                let inbox = Inbox::new(url, listener, Arc::clone(&processor))?;
                Ok(Self { database, tally, hearing: Hearing::Producer { inbox, processor } })
            }
            Some(url) => {
                let tally = Arc::<Tally>::default();
                let service = rabbit::service(options, store, worker, Arc::clone(&tally));
                let running = service.start(Amqp::new(url)).await?;
                Ok(Self { database, tally, hearing: Hearing::Broker(running) })
            }
        }
    }

    /// `/api/events`, `/health` and `/metrics`.
    pub(crate) fn pages(&self, metrics: PrometheusHandle) -> Router {
        let health = self.health();
        Router::new()
            .route("/api/events", get(events))
            .with_state(self.database.clone())
            .merge(monitor::pages(metrics, move || health.report()))
    }

    /// Its counts, live.
    pub(crate) fn counters(&self) -> Counters {
        let broker = match &self.hearing {
            Hearing::Producer { .. } => None,
            Hearing::Broker(running) => Some(running.stats().clone()),
        };
        Counters { tally: Arc::clone(&self.tally), broker }
    }

    /// Processes events until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<(), Failure> {
        match self.hearing {
            Hearing::Producer { inbox, .. } => inbox.hear(&stop).await,
            Hearing::Broker(mut running) => {
                stop.run_until_cancelled(running.failed()).await;
                running.stop().await?;
            }
        }
        self.database.close().await;
        Ok(())
    }

    fn health(&self) -> Parts {
        let (way, store, service) = match &self.hearing {
            Hearing::Producer { inbox, processor } => {
                (Some(inbox.status()), Some(processor.store.clone()), None)
            }
            Hearing::Broker(running) => (None, None, Some(running.health().clone())),
        };
        Parts { way, store, service, database: self.database.clone() }
    }
}

/// What the health of a listener is made of.
#[derive(Clone)]
struct Parts {
    way: Option<StatusCell>,
    store: Option<StatusCell>,
    service: Option<Health>,
    database: Database,
}

impl Parts {
    fn report(&self) -> HealthReport {
        let mut report = match &self.service {
            Some(service) => service.report(),
            None => HealthReport::new("event-processor"),
        };
        for (name, part) in [("producer", &self.way), ("store", &self.store)] {
            if let Some(part) = part {
                report.connections.insert(name.to_owned(), part.status());
            }
        }
        report.connections.insert("database".to_owned(), self.database.status());
        report
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    /// The id after which it begins.
    #[serde(default)]
    after: String,
    limit: Option<u16>,
}

/// Not a [`serde_json::Value`], which cannot hold every payload as it was written.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    events: &'a [Stored],
    next: Option<&'a str>,
}

/// What is stored, in the order of the ids, a page at a time; `next` is the `after` of the next
/// page, absent on the last one.
async fn events(
    State(database): State<Database>,
    page: Result<Query<Page>, QueryRejection>,
) -> Response {
    let Page { after, limit } = match page {
        Ok(Query(page)) => page,
        Err(rejection) => return refusal(StatusCode::BAD_REQUEST, &rejection.body_text()),
    };
    let limit = limit.unwrap_or(PAGE);
    if !(1..=LARGEST_PAGE).contains(&limit) {
        let reason = format!("limit is from 1 to {LARGEST_PAGE}");
        return refusal(StatusCode::BAD_REQUEST, &reason);
    }
    // One more than is shown tells whether there is another page.
    match database.page(&after, limit + 1).await {
        Ok(mut events) => {
            let is_last = events.len() <= usize::from(limit);
            events.truncate(limit.into());
            let next = events.last().filter(|_| !is_last).map(|event| &*event.event_id);
            Json(Shown { events: &events, next }).into_response()
        }
        Err(failure) => refusal(StatusCode::SERVICE_UNAVAILABLE, &error_chain(&*failure)),
    }
}
