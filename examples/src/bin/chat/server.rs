//! A server: the page, sign-in, conversations over HTTP, sockets, health and metrics.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics::{describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::PrometheusHandle;
use mmate_core::health::{Status, StatusCell};
use mmate_core::{Running, Transport, error_chain};
use mmate_examples::database::Statements;
use mmate_examples::monitor;
use mmate_examples::program::{Failure, refusal};
use mmate_examples::sign_in::{self, Name, Signer, signed_in};
use mmate_examples::sockets::Mailboxes;
use mmate_idempotency::store::Store;
use serde::Deserialize;
use serde_json::{Value, json};
use socketioxide::SocketIo;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::delivery::DELIVERED;
use crate::directory::Directory;
use crate::options::Places;
use crate::sockets::{Room, SENT};
use crate::{page, talk};

const CONNECTED: &str = "chat_sockets";

/// The largest message of a client, in bytes.
const LARGEST: u64 = 64 * 1024;

/// How many connections to the database the messages have.
const CONNECTIONS: u32 = 16;

pub(crate) struct Server {
    room: Room,
    running: Running,
    database: StatusCell,
    store: StatusCell,
    look: [AbortHandle; 2],
}

impl Server {
    pub(crate) async fn open<DB: Statements>(
        places: &Places,
        secret: &str,
        servers: Vec<String>,
        store: Arc<dyn Store>,
        broker: Arc<dyn Transport>,
    ) -> Result<Self, Failure> {
        describe_counter!(SENT, "Messages that got a number, by whether they had it before.");
        describe_counter!(DELIVERED, "Messages that were shown to a client.");
        describe_gauge!(CONNECTED, "Clients that are connected.");
        let lease = places.lease();
        let pool = DB::connect(places.database(), CONNECTIONS).await?;
        let directory = Directory::open(places.database(), Arc::clone(&store), lease).await?;
        let mailboxes = Mailboxes::default();
        let service = talk::service(&pool, store, lease, mailboxes.clone()).await?;
        let running = service.start(broker).await?;
        let room = Room {
            directory,
            publisher: running.publisher().clone(),
            mailboxes,
            signer: Signer::new(secret),
            servers: servers.into(),
        };
        let [database, store] = [StatusCell::new(Status::Up), StatusCell::new(Status::Up)];
        let look = [
            tokio::spawn(look_at_database(room.clone(), database.clone())).abort_handle(),
            tokio::spawn(look_at_store(room.clone(), store.clone())).abort_handle(),
        ];
        Ok(Self { room, running, database, store, look })
    }

    /// Everything that it serves.
    pub(crate) fn pages(&self, metrics: PrometheusHandle) -> Router {
        let (layer, io) = SocketIo::builder().max_payload(LARGEST).build_layer();
        self.room.open(&io);
        let health = self.running.health().clone();
        let (database, store) = (self.database.clone(), self.store.clone());
        let report = move || {
            let mut report = health.report();
            report.connections.insert("database".to_owned(), database.status());
            report.connections.insert("store".to_owned(), store.status());
            report
        };
        Router::new()
            .route("/api/conversations", get(conversations).post(open))
            .route("/api/contacts", get(contacts))
            .route("/api/servers", get(servers))
            .with_state(self.room.clone())
            .merge(sign_in::routes(self.room.signer.clone()))
            .merge(page::routes())
            .merge(monitor::pages(metrics, report))
            .layer(layer)
    }

    pub(crate) async fn close(self) -> Result<(), Failure> {
        self.look.iter().for_each(AbortHandle::abort);
        self.running.stop().await?;
        self.room.directory.close().await;
        Ok(())
    }
}

/// How long it is until it is looked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Whether or not somebody writes.
async fn look_at_database(room: Room, database: StatusCell) {
    loop {
        database.set(room.directory.database().await);
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        gauge!(CONNECTED).set(room.mailboxes.len() as f64);
        sleep(AGAIN).await;
    }
}

async fn look_at_store(room: Room, store: StatusCell) {
    loop {
        store.set(room.directory.store().await);
        sleep(AGAIN).await;
    }
}

async fn servers(State(room): State<Room>) -> Json<Value> {
    Json(json!(&*room.servers))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Open {
    with: Name,
}

/// Creates the conversation of two users, or finds it.
async fn open(State(room): State<Room>, headers: HeaderMap, Json(open): Json<Open>) -> Response {
    let name = match signed_in(&room.signer, &headers) {
        Ok(name) => name,
        Err(refusal) => return *refusal,
    };
    if name == open.with {
        return refusal(StatusCode::BAD_REQUEST, "a conversation is with somebody else");
    }
    match room.open_direct(&name, &open.with).await {
        Ok(opened) => Json(opened).into_response(),
        Err(reason) => refusal(StatusCode::SERVICE_UNAVAILABLE, &reason),
    }
}

async fn conversations(State(room): State<Room>, headers: HeaderMap) -> Response {
    match signed_in(&room.signer, &headers) {
        Ok(name) => found(room.directory.conversations(&name).await),
        Err(refusal) => *refusal,
    }
}

async fn contacts(State(room): State<Room>, headers: HeaderMap) -> Response {
    match signed_in(&room.signer, &headers) {
        Ok(name) => found(room.directory.contacts(&name).await),
        Err(refusal) => *refusal,
    }
}

fn found<T: serde::Serialize>(found: sqlx::Result<T>) -> Response {
    match found {
        Ok(found) => Json(found).into_response(),
        Err(error) => refusal(StatusCode::SERVICE_UNAVAILABLE, &error_chain(&error)),
    }
}
