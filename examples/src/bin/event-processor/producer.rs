//! The producer: takes events over HTTP and shows them to the listeners.

use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{DefaultBodyLimit, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use metrics::counter;
use metrics_exporter_prometheus::PrometheusHandle;
use mmate_core::{MessageId, error_chain};
use mmate_examples::monitor;
use mmate_examples::program::{Failure, refusal};
use serde::Deserialize;
use serde_json::json;

use crate::event::Event;
use crate::feed;
use crate::options::ProducerOptions;
use crate::publishing::Publishing;
use crate::tally::PUBLISHED;

/// The largest body that is taken, in bytes.
const LARGEST: usize = 64 * 1024;

#[derive(Clone)]
pub(crate) struct Producer {
    publishing: Arc<Publishing>,
}

impl Producer {
    pub(crate) async fn open(options: &ProducerOptions) -> Result<Self, Failure> {
        Ok(Self { publishing: Arc::new(Publishing::open(options).await?) })
    }

    pub(crate) fn pages(&self, metrics: PrometheusHandle) -> Router {
        let publishing = Arc::clone(&self.publishing);
        Router::new()
            .route("/publish", post(publish))
            .route("/listen", get(listen))
            .layer(DefaultBodyLimit::max(LARGEST))
            .with_state(self.clone())
            .merge(monitor::pages(metrics, move || publishing.report()))
    }

    /// Publishes an event. When it returns, the event survives a kill of this process.
    pub(crate) async fn publish(&self, event: &Event) -> Result<Option<i64>, Failure> {
        let number = self.publishing.publish(event).await?;
        counter!(PUBLISHED).increment(1);
        Ok(number)
    }

    pub(crate) async fn close(&self) {
        self.publishing.close().await;
    }
}

/// 202 once it is sure that the listeners will get it, 400 with the reason for what is no event.
async fn publish(
    State(producer): State<Producer>,
    body: Result<Json<Event>, JsonRejection>,
) -> Response {
    let event = match body {
        Ok(Json(event)) => event,
        Err(rejection) => {
            let status = match rejection.status() {
                large @ StatusCode::PAYLOAD_TOO_LARGE => large,
                _ => StatusCode::BAD_REQUEST,
            };
            return refusal(status, &reason(&rejection));
        }
    };
    match producer.publish(&event).await {
        Ok(number) => {
            let answer = json!({"event_id": event.event_id, "number": number});
            (StatusCode::ACCEPTED, Json(answer)).into_response()
        }
        Err(failure) => {
            let text = format!("it could not be published: {}", error_chain(&*failure));
            refusal(StatusCode::SERVICE_UNAVAILABLE, &text)
        }
    }
}

/// What is wrong with a body, without what wraps it.
fn reason(rejection: &JsonRejection) -> String {
    let mut innermost: &dyn std::error::Error = rejection;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[derive(Deserialize)]
struct Listening {
    instance: MessageId,
}

/// The WebSocket of a listener.
async fn listen(
    State(producer): State<Producer>,
    Query(listening): Query<Listening>,
    upgrade: WebSocketUpgrade,
) -> Response {
    match producer.publishing.journal() {
        Some(journal) => {
            let journal = journal.clone();
            upgrade.on_upgrade(async move |socket| {
                feed::serve(socket, &journal, listening.instance.as_str()).await;
            })
        }
        None => refusal(StatusCode::NOT_FOUND, "the events are shown over RabbitMQ"),
    }
}
