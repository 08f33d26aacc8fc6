//! A server: sign-in, sockets, and the photos themselves.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use mmate_amqp::Amqp;
use mmate_core::health::{Status, StatusCell};
use mmate_core::{Health, HealthReport, Running, Transport, error_chain};
use mmate_examples::monitor;
use mmate_examples::program::{Failure, refusal};
use mmate_examples::sign_in::{self, Signer, signed_in};
use mmate_examples::sockets::Mailboxes;
use mmate_examples::stores::{self, Keep};
use mmate_idempotency::audit::{Audit, AuditQuery, ProcessedMessage};
use mmate_idempotency::protocol::Retention;
use mmate_idempotency::store::Store;
use serde_json::{Value, json};
use socketioxide::SocketIo;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::sleep;

use crate::album::Album;
use crate::delivery;
use crate::desk::{self, Desk};
use crate::options::{ServerOptions, WorkOptions};
use crate::tally::{self, Tally};

pub(crate) struct Server {
    room: Room,
    running: Option<Running>,
    tasks: Vec<AbortHandle>,
}

/// What its handlers need.
#[derive(Clone)]
pub(crate) struct Room {
    pub(crate) desk: Arc<Desk>,
    pub(crate) mailboxes: Mailboxes,
    audit: Option<Arc<dyn Audit>>,
    pub(crate) signer: Signer,
    pub(crate) largest: usize,
    database: StatusCell,
    store: StatusCell,
    broker: Option<Health>,
}

/// The store as a server is told to open it.
pub(crate) async fn open_store(name: &str, work: &WorkOptions) -> Result<Arc<dyn Store>, Failure> {
    let retention = Retention::window(work.keep());
    let most = usize::try_from(work.keep_most).unwrap_or(usize::MAX);
    stores::open_for(name, Keep { retention, most }).await
}

impl Server {
    pub(crate) async fn open(options: &ServerOptions) -> Result<Self, Failure> {
        let store = open_store(&options.store, &options.work).await?;
        let broker = options.broker.as_ref().map(|url| Arc::new(Amqp::new(url)) as _);
        Self::with(options, store, broker).await
    }

    /// With a store and a broker that are there already.
    pub(crate) async fn with(
        options: &ServerOptions,
        store: Arc<dyn Store>,
        broker: Option<Arc<dyn Transport>>,
    ) -> Result<Self, Failure> {
        tally::describe();
        let signer = Signer::new(&options.secret);
        let album = Arc::new(Album::open(&options.folder, &options.database, signer.clone())?);
        let mailboxes = Mailboxes::default();
        let running = match broker {
            Some(broker) => Some(delivery::service(mailboxes.clone()).start(broker).await?),
            None => None,
        };
        let publisher = running.as_ref().map(|running| running.publisher().clone());
        let room = Room {
            desk: Arc::new(Desk::new(album, store, publisher, &options.work)),
            mailboxes,
            audit: stores::audit(&options.store).await?,
            signer,
            largest: options.work.largest as usize,
            database: StatusCell::new(Status::Up),
            store: StatusCell::new(Status::Up),
            broker: running.as_ref().map(|running| running.health().clone()),
        };
        let log = tokio::spawn(tally::log(Arc::clone(&room.desk)));
        let looks = [
            tokio::spawn(look_at_database(room.clone())),
            tokio::spawn(look_at_store(room.clone())),
        ];
        let tasks = looks.iter().chain([&log]).map(JoinHandle::abort_handle).collect();
        Ok(Self { room, running, tasks })
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.room.desk.tally
    }

    /// Everything that it serves.
    pub(crate) fn pages(&self, metrics: PrometheusHandle) -> Router {
        // What is a little too large is answered; what is far too large ends the connection.
        let most = 2 * self.room.largest + 64 * 1024;
        let (layer, io) = SocketIo::builder().max_payload(most as u64).build_layer();
        self.room.open(&io);
        let health = self.room.clone();
        Router::new()
            .route("/photos/{file}", get(photo))
            .route("/api/records", get(records))
            .with_state(self.room.clone())
            .merge(sign_in::routes(self.room.signer.clone()))
            .merge(monitor::pages(metrics, move || health.report()))
            .layer(layer)
    }

    pub(crate) async fn close(self) -> Result<(), Failure> {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.room.desk.finish(Duration::from_secs(10)).await;
        if let Some(running) = self.running {
            running.stop().await?;
        }
        self.room.desk.album.close().await;
        Ok(())
    }
}

impl Room {
    fn report(&self) -> HealthReport {
        let mut report = match &self.broker {
            Some(broker) => broker.report(),
            None => HealthReport::new("photos"),
        };
        report.connections.insert("store".to_owned(), self.store.status());
        report.connections.insert("database".to_owned(), self.database.status());
        report
    }
}

/// How long it is until it is looked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Whether or not somebody sends a photo.
async fn look_at_database(room: Room) {
    loop {
        room.database.set(room.desk.album.status().await);
        sleep(AGAIN).await;
    }
}

async fn look_at_store(room: Room) {
    loop {
        room.store.set(room.desk.store_status().await);
        sleep(AGAIN).await;
    }
}

async fn photo(State(room): State<Room>, Path(file): Path<String>) -> Response {
    match room.desk.album.read(&file).await {
        Ok(Some((format, content))) => {
            let headers = [
                (header::CONTENT_TYPE, format.content_type()),
                (header::CACHE_CONTROL, "private, max-age=31536000, immutable"),
                (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            ];
            (headers, content).into_response()
        }
        Ok(None) => refusal(StatusCode::NOT_FOUND, "there is no such photo"),
        Err(error) => refusal(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

/// The records of whoever asks: which ids were seen, what became of them, and until when that is kept.
async fn records(State(room): State<Room>, headers: HeaderMap) -> Response {
    let name = match signed_in(&room.signer, &headers) {
        Ok(name) => name,
        Err(refusal) => return *refusal,
    };
    let Some(audit) = &room.audit else {
        let reason = "only records in a database can be asked for";
        return refusal(StatusCode::NOT_IMPLEMENTED, reason);
    };
    match audit.find(&AuditQuery::new().scope(desk::scope(&name)).limit(1_000)).await {
        Ok(records) => Json(records.iter().map(record).collect::<Vec<_>>()).into_response(),
        Err(error) => refusal(StatusCode::SERVICE_UNAVAILABLE, &error_chain(&error)),
    }
}

fn record(record: &ProcessedMessage) -> Value {
    let seconds = |time: std::time::SystemTime| {
        time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs()
    };
    json!({
        "messageId": record.message_id,
        "status": record.status.as_str(),
        "attempts": record.attempt,
        "processedAt": record.processed_at.map(seconds),
        "expiresAt": record.expires_at.map(seconds),
    })
}
