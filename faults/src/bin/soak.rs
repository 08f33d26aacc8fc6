//! A long run under load and many faults; see `scripts/soak`.

use std::process::ExitCode;

use clap::Parser;
use mmate_faults::soak::{self, Options, Plan};

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter("error").init();
    let ended = match std::env::var("SOAK_ROLE") {
        Ok(role) => match serde_json::from_str(&role) {
            Ok(role) => soak::consume(role).await.map(|_| true),
            Err(error) => Err(error.into()),
        },
        Err(_) => {
            let options = Options::parse();
            soak::run(&Plan::of(&options), &options).await.map(|outcome| outcome.verdict.is_clean())
        }
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::from(2)
        }
    }
}
