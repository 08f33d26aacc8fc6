//! Measures mmate beside its client library and what people write by hand: `scripts/bench` runs it.
//!
//! Each case runs its contenders in turn, round after round, so that what the machine does besides
//! falls on all of them alike; what counts is their ratio within a round.

mod by_hand;
mod cases;
mod contest;
mod figures;
mod goal;
mod message;
mod options;
mod page;
mod plot;
mod progress;
mod queue;
mod report;
mod servers;
mod service;
mod yardstick;

use std::process::ExitCode;

use clap::Parser;

use self::options::Options;

#[global_allocator]
static ALLOCATOR: &stats_alloc::StatsAlloc<std::alloc::System> = &stats_alloc::INSTRUMENTED_SYSTEM;

/// What goes wrong; it ends the run.
type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let options = Options::parse();
    let run = async {
        match (&options.consume, &options.amqp) {
            (Some(queue), Some(amqp)) => cases::processes::consume(amqp, queue).await,
            _ => cases::run(&options).await,
        }
    };
    match run.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::from(2)
        }
    }
}
