//! A service that can be watched: its health and its metrics over HTTP.
//!
//! `cargo run --bin monitored` handles an event each second, in a broker inside the process or,
//! with `--broker URL`, on RabbitMQ. `docs/operations.md` says what the pages show.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use mmate_amqp::Amqp;
use mmate_core::{
    HandlerError, InProcess, Json, Outgoing, Publisher, Service, Subscription, Transport,
    error_chain, shutdown_signal,
};
use mmate_examples::program::{Failure, exit_code, listen};
use mmate_examples::{monitor, telemetry};
use mmate_idempotency::{MemoryStore, Tracked};

/// Handles an event each second, and serves /health and /metrics.
#[derive(Debug, Parser)]
#[command(name = "monitored", version)]
struct Options {
    /// A RabbitMQ server, such as amqp://guest:guest@localhost:5672/%2f [default: a broker inside
    /// this process]
    #[arg(long, value_name = "URL")]
    broker: Option<String>,

    /// Where the pages are
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9464")]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    telemetry::start("warn").finish_and_clear();
    exit_code("monitored", run(options).await.map(|()| true))
}

async fn run(options: Options) -> Result<(), Failure> {
    let metrics = monitor::collect()?;
    let listener = listen(options.listen).await?;
    let address = listener.local_addr()?;
    let transport: Arc<dyn Transport> = match &options.broker {
        Some(url) => Arc::new(Amqp::new(url)),
        None => Arc::new(InProcess::new()),
    };
    let mut running = Service::new("ticker")
        .subscribe(
            Subscription::per_service("count", ["clock.ticked.*"])
                .idempotent(Tracked::new(MemoryStore::new()))
                .handler(count),
        )
        .start(transport)
        .await?;
    println!("http://{address}/health and http://{address}/metrics");

    let health = running.health().clone();
    let pages = monitor::pages(metrics, move || health.report());
    let mut pages = tokio::spawn(monitor::serve(listener, pages, shutdown_signal()));
    let ticking = tokio::spawn(tick(running.publisher().clone()));
    let served = tokio::select! {
        served = &mut pages => served?,
        () = running.failed() => Ok(()),
    };
    ticking.abort();
    running.stop().await?;
    Ok(served?)
}

async fn count(Json(tick): Json<u64>) -> Result<(), HandlerError> {
    tracing::info!(tick, "handled");
    Ok(())
}

async fn tick(publisher: Publisher) {
    for tick in 0_u64.. {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let event = Outgoing::event("clock.ticked.eu", "ClockTicked", &tick);
        if let Err(error) = publisher.publish(event).await {
            tracing::warn!(error = error_chain(&error), "a tick was not published");
        }
    }
}
