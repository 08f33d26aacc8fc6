//! Events that every listener hears, and one of them processes.
//!
//! A producer takes events over HTTP and shows each to all listeners, over WebSocket or RabbitMQ.
//! One listener claims the event, works on it and stores it; the others see that it is a duplicate.
//! `cargo run --release --bin event-processor` shows all of it in one process; the commands
//! `producer` and `listener` are the same in processes of their own.
//! `docs/examples/event-processor.md` walks through it.

mod database;
mod demo;
mod event;
mod feed;
mod inbox;
mod journal;
mod listener;
mod options;
mod processor;
mod producer;
mod publishing;
mod rabbit;
mod tally;

use std::process::ExitCode;

use clap::Parser;
use mmate_core::shutdown_signal;
use mmate_examples::program::{Failure, exit_code, listen};
use mmate_examples::{monitor, stores, telemetry};
use tokio_util::sync::CancellationToken;

use database::Database;
use listener::Listener;
use options::{Command, ListenerOptions, Options, ProducerOptions};
use producer::Producer;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    // What happens to the connection to RabbitMQ, mmate tells; lapin calls its orderly end an error.
    let log = match options.command {
        Some(_) => "warn,lapin=off,event_processor=info",
        None => "warn,lapin=off",
    };
    telemetry::start(log).finish_and_clear();
    let is_well = match options.command {
        Some(Command::Producer(options)) => produce(options).await.map(|()| true),
        Some(Command::Listener(options)) => process(options).await.map(|()| true),
        None => demo::run(options.demo).await,
    };
    exit_code("event-processor", is_well)
}

async fn produce(options: ProducerOptions) -> Result<(), Failure> {
    let metrics = monitor::collect()?;
    tally::describe();
    let http = listen(options.listen).await?;
    let producer = Producer::open(&options).await?;
    println!("http://{}/publish", http.local_addr()?);
    monitor::serve(http, producer.pages(metrics), shutdown_signal()).await?;
    producer.close().await;
    Ok(())
}

async fn process(options: ListenerOptions) -> Result<(), Failure> {
    let metrics = monitor::collect()?;
    tally::describe();
    let http = listen(options.listen).await?;
    let database = Database::open(&options.database)?;
    let store = stores::open(&options.store).await?;
    let listener = Listener::open(&options, database, store).await?;
    println!("http://{}/api/events", http.local_addr()?);
    let stop = CancellationToken::new();
    let pages = listener.pages(metrics);
    let pages = tokio::spawn(monitor::serve(http, pages, stop.clone().cancelled_owned()));
    let mut running = tokio::spawn(listener.run(stop.clone()));
    let ended = tokio::select! {
        ended = &mut running => ended,
        () = shutdown_signal() => {
            stop.cancel();
            running.await
        }
    };
    stop.cancel();
    pages.await??;
    ended?
}
