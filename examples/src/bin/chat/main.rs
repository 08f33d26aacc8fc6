//! A chat that never doubles a message, on as many servers as one likes.
//!
//! Users talk over Socket.IO, each to any server. A message is a request to whichever server takes it: under a lock of its
//! conversation it gets the next number in a transaction, and all servers show it to those of its readers whom they have.
//! `cargo run --release --bin chat` serves a page to try it; `docs/examples/chat.md` walks through it.

mod delivery;
mod directory;
mod merge;
mod message;
mod options;
mod page;
mod server;
mod sockets;
mod tables;
mod talk;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use mmate_amqp::Amqp;
use mmate_core::{InProcess, MessageId, Transport, shutdown_signal};
use mmate_examples::program::{Failure, exit_code, listen};
use mmate_examples::{monitor, stores, telemetry, with_database};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use options::{Command, Options, Places, ServeOptions};
use server::Server;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    telemetry::start("warn,lapin=off,chat=info").finish_and_clear();
    let is_well = match options.command {
        None => try_out(&options.listen, &options.places).await.map(|()| true),
        Some(Command::Serve(options)) => serve(options).await.map(|()| true),
        Some(Command::Merge(options)) => merge::run(&options.database).await.map(|()| true),
    };
    exit_code("chat", is_well)
}

/// Servers in this process, which share what is in memory and a database in a temporary folder unless told otherwise.
async fn try_out(addresses: &[SocketAddr], places: &Places) -> Result<(), Failure> {
    let folder = TempDir::new()?;
    let file = || format!("sqlite:{}", folder.path().join("chat.db").display());
    let mut places = places.clone();
    places.database.get_or_insert_with(file);
    places.store.get_or_insert_with(|| "memory".to_owned());
    let broker: Arc<dyn Transport> = match &places.broker {
        Some(url) => Arc::new(Amqp::new(url)),
        None => Arc::new(InProcess::new()),
    };
    let mut listeners = Vec::new();
    for address in addresses {
        listeners.push(listen(*address).await?);
    }
    let addresses = listeners.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>()?;
    let servers = addresses.iter().map(|address| format!("http://{address}")).collect();
    let secret = MessageId::generate().to_string();
    run(listeners, broker, &places, &secret, servers).await
}

/// One server, which shares a database, a store and a broker with others.
async fn serve(options: ServeOptions) -> Result<(), Failure> {
    let broker: Arc<dyn Transport> = match &options.places.broker {
        Some(url) => Arc::new(Amqp::new(url)),
        None => Arc::new(InProcess::new()),
    };
    let listener = listen(options.listen).await?;
    run(vec![listener], broker, &options.places, &options.secret, options.servers).await
}

/// Serves on each of the listeners until Ctrl-C.
async fn run(
    listeners: Vec<TcpListener>,
    broker: Arc<dyn Transport>,
    places: &Places,
    secret: &str,
    servers: Vec<String>,
) -> Result<(), Failure> {
    let metrics = monitor::collect()?;
    let store = stores::open(places.store()).await?;
    let (mut pages, mut running, mut urls) = (JoinSet::new(), Vec::new(), Vec::new());
    let stop = CancellationToken::new();
    for listener in listeners {
        let (broker, store) = (Arc::clone(&broker), Arc::clone(&store));
        let server = with_database!(
            places.database(),
            DB => Server::open::<DB>(places, secret, servers.clone(), store, broker).await?
        );
        urls.push(format!("http://{}", listener.local_addr()?));
        let stopped = stop.clone().cancelled_owned();
        pages.spawn(monitor::serve(listener, server.pages(metrics.clone()), stopped));
        running.push(server);
    }
    println!("{}", urls.join(" "));
    shutdown_signal().await;
    stop.cancel();
    for server in running {
        server.close().await?;
    }
    while let Some(ended) = pages.join_next().await {
        ended??;
    }
    Ok(())
}
