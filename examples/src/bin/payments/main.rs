//! Orders that are paid once each, at a provider that is slow, fails, and answers too late.
//!
//! A shop places orders, and repeats itself. A service charges each at the provider, notes the payment and tells of it;
//! it hears of what it tells, and writes receipts. `cargo run --release --bin payments` shows all of it in one process;
//! the commands are the same in processes of their own, to be killed. `docs/examples/payments.md` walks through it.

mod bank;
mod books;
mod check;
mod demo;
mod options;
mod order;
mod provider;
mod service;
mod shop;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use mmate_amqp::Amqp;
use mmate_core::{Publisher, shutdown_signal};
use mmate_examples::program::{Failure, exit_code, listen};
use mmate_examples::{stores, telemetry};

use bank::Bank;
use books::Database;
use check::Report;
use options::{CheckOptions, Command, Options, PublishOptions, ServiceOptions};
use provider::Provider;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    // A provider that fails is what this is about: what comes of it is in the counts.
    telemetry::start("error,lapin=off,payments=info").finish_and_clear();
    let is_well = match options.command {
        Some(Command::Provider(options)) => provide(options).await.map(|()| true),
        Some(Command::Service(options)) => serve(options).await.map(|()| true),
        Some(Command::Publish(options)) => publish(options).await.map(|()| true),
        Some(Command::Check(options)) => check(options).await,
        None => demo::run(options.demo).await,
    };
    exit_code("payments", is_well)
}

async fn provide(options: options::ProviderOptions) -> Result<(), Failure> {
    let http = listen(options.listen).await?;
    println!("http://{}", http.local_addr()?);
    let provider = Provider::new(options.manners);
    axum::serve(http, provider.pages()).with_graceful_shutdown(shutdown_signal()).await?;
    provider.finish().await;
    Ok(())
}

async fn serve(options: ServiceOptions) -> Result<(), Failure> {
    let locks = stores::open(&options.locks).await?;
    let bank = Bank::at(&options.provider, options.work.patience())?;
    let database = Database::open(&options.database).await?;
    let broker = Arc::new(Amqp::new(&options.broker));
    let running = service::start(&database, bank, locks, &options.work, broker).await?;
    println!("working");
    shutdown_signal().await;
    Ok(running.stop().await?)
}

async fn publish(options: PublishOptions) -> Result<(), Failure> {
    let publisher = Publisher::connect(&Amqp::new(&options.broker), "shop").await?;
    let published = shop::place(&publisher, options.orders).await?;
    println!("published {published} messages about {} orders", options.orders);
    publisher.close().await;
    Ok(())
}

async fn check(options: CheckOptions) -> Result<bool, Failure> {
    let bank = Bank::at(&options.provider, options::PATIENCE)?;
    let summary = Database::open(&options.database).await?.summary().await?;
    let report = Report::of(&bank.charges().await?, &summary, options.orders);
    print!("{report}");
    Ok(report.is_clean())
}
