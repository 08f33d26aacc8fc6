//! Measures mmate beside its client library and what people write by hand: `scripts/bench` runs it.
//!
//! Each case runs its contenders in turn, round after round, so that what the machine does besides
//! falls on all of them alike; what counts is their ratio within a round.
//!
//! There are two programs: the one that measures, and its twin, which counts allocations. Counting costs a
//! message a tenth of its time.

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
mod twin;
mod yardstick;

use std::process::ExitCode;

use clap::Parser;

use self::options::Options;

/// What counts allocations, in a program that has it as its allocator.
pub static ALLOCATOR: &stats_alloc::StatsAlloc<std::alloc::System> =
    &stats_alloc::INSTRUMENTED_SYSTEM;

/// What goes wrong; it ends the run.
type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = Error> = std::result::Result<T, E>;

/// Does what the command line says.
pub async fn run() -> ExitCode {
    let options = Options::parse();
    let run = async {
        match (&options.consume, &options.amqp, &options.count) {
            (Some(queue), Some(amqp), _) => cases::processes::consume(amqp, queue).await,
            (_, _, Some(contender)) => cases::count(&options, contender).await,
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
