//! An order service that hears of the same event up to three times, and applies it once.
//!
//! `cargo run --release --bin orders` publishes the order events of a file, consumes them through
//! overlapping subscriptions, applies each to a database, and then checks itself: what was lost,
//! what has taken effect twice. `docs/examples/orders.md` walks through it.

mod check;
mod database;
mod input;
mod options;
mod report;
mod shop;
mod system;

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use mmate_amqp::Amqp;
use mmate_core::{InProcess, Transport, error_chain, shutdown_signal};
use mmate_examples::{Chaos, telemetry};

use options::{Failure, Options, TopologyFormat};
use system::System;

/// The exit code after Ctrl-C, as shells count it.
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let bar = telemetry::start("error,mmate_amqp=warn");
    let outcome = tokio::select! {
        outcome = run(&options, &bar) => outcome,
        () = shutdown_signal() => {
            bar.finish_and_clear();
            eprintln!("orders: interrupted; what was not finished is finished by the next run");
            return INTERRUPTED.into();
        }
    };
    bar.finish_and_clear();
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("orders: {}", error_chain(&*failure));
            ExitCode::from(2)
        }
    }
}

/// Whether nothing was lost and nothing took effect twice.
async fn run(options: &Options, bar: &indicatif::ProgressBar) -> Result<bool, Failure> {
    let transport: Arc<dyn Transport> = match &options.broker {
        Some(url) => Arc::new(Amqp::new(url)),
        None => Arc::new(InProcess::new()),
    };
    let transport = match options.chaos {
        true => Arc::new(Chaos::new(transport)),
        false => transport,
    };

    if let Some(format) = options.print_topology {
        let topology = system::topology(&transport)?;
        match format {
            TopologyFormat::Text => print!("{topology}"),
            TopologyFormat::Mermaid => print!("{}", topology.to_mermaid()),
        }
        return Ok(true);
    }

    let system = System::start(options, transport).await?;
    bar.set_message("published");
    let ledger = input::publish_all(options, system.publisher(), bar).await?;
    let dead = system.finish(&ledger, options.patience(), bar).await?;
    let counts = system.counts();
    let verdict = check::verdict(system.database(), &ledger, &dead).await?;
    system.stop().await?;

    bar.finish_and_clear();
    let report = report::Report::new(&ledger, &counts, &verdict);
    match options.json {
        true => println!("{}", report.to_json()),
        false => print!("{}", report.to_table(&counts.duplicates)),
    }
    verdict.explain(options.strategy);
    Ok(verdict.is_clean())
}
