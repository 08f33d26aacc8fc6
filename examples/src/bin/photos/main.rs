//! Photos that are sent more than once, stored once, delivered once, and answered alike.
//!
//! Clients speak Socket.IO to any server. A repeated `messageId` is answered from the record of the first: also while that
//! one is still being stored, and also at another server. `cargo run --release --bin photos` shows it in one process; the
//! command `serve` is a server in a process of its own. `docs/examples/photos.md` walks through it.

mod album;
mod delivery;
mod demo;
mod desk;
mod options;
mod server;
mod sockets;
mod tally;
mod upload;

use std::process::ExitCode;

use clap::Parser;
use mmate_core::shutdown_signal;
use mmate_examples::program::{Failure, exit_code, listen};
use mmate_examples::{monitor, telemetry};

use options::{Command, Options, ServerOptions};
use server::Server;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    telemetry::start("warn,lapin=off,photos=info").finish_and_clear();
    let is_well = match options.command {
        Some(Command::Serve(options)) => serve(options).await.map(|()| true),
        None => demo::run(options.demo).await,
    };
    exit_code("photos", is_well)
}

async fn serve(options: ServerOptions) -> Result<(), Failure> {
    let metrics = monitor::collect()?;
    let http = listen(options.listen).await?;
    let server = Server::open(&options).await?;
    println!("http://{}", http.local_addr()?);
    monitor::serve(http, server.pages(metrics), shutdown_signal()).await?;
    server.close().await
}
