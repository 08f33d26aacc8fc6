//! A long run under load and many faults; see `scripts/soak`.

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use mmate_faults::soak::{self, Options, Plan};

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(std::env::var("RUST_LOG").unwrap_or_else(|_| "error".into()))
        .init();
    match run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs a soak, or a consumer of one. Whether everything was as promised.
async fn run() -> Result<bool, Box<dyn Error + Send + Sync>> {
    if let Ok(role) = std::env::var("SOAK_ROLE") {
        match soak::consume(serde_json::from_str(&role)?).await? {}
    }
    let options = Options::parse();
    let outcome = soak::run(&Plan::of(&options)?, &options).await?;
    Ok(outcome.verdict.is_clean())
}
