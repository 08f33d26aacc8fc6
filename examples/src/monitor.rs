//! Pages for whoever watches a service: `/health` for an orchestrator's probes, `/metrics` for
//! Prometheus.

use std::future::Future;
use std::io;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use mmate_core::HealthReport;
use mmate_core::health::Status;
use tokio::net::TcpListener;

/// The bounds of the histograms' buckets, in seconds.
const BUCKETS: [f64; 12] =
    [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Has everything that is measured in this process collected from now on. Called once, in a
/// runtime, before a service starts.
///
/// # Errors
/// When somebody else collects already.
pub fn collect() -> Result<PrometheusHandle, metrics_exporter_prometheus::BuildError> {
    let seconds = Matcher::Suffix("_seconds".to_owned());
    let metrics =
        PrometheusBuilder::new().set_buckets_for_metric(seconds, &BUCKETS)?.install_recorder()?;
    let collected = metrics.clone();
    tokio::spawn(async move {
        // Histograms that nobody asks for would grow without end.
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            collected.run_upkeep();
        }
    });
    Ok(metrics)
}

/// Both pages, to be served alone or beside others.
///
/// `/health` is 503 while the service does not work; 200 also while it is degraded, since another
/// instance would do no better.
pub fn pages(
    metrics: PrometheusHandle,
    health: impl Fn() -> HealthReport + Clone + Send + Sync + 'static,
) -> Router {
    let health_page = async move || {
        let report = health();
        let code = match report.status() {
            Status::Up | Status::Degraded { .. } => StatusCode::OK,
            Status::Down { .. } => StatusCode::SERVICE_UNAVAILABLE,
        };
        (code, Json(report)).into_response()
    };
    let metrics_page = async move || metrics.render();
    Router::new().route("/health", get(health_page)).route("/metrics", get(metrics_page))
}

/// Serves these pages on the listener until `stop`.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    pages: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, pages).with_graceful_shutdown(stop).await
}
