//! A service without a broker: payments over HTTP, each taken once however often a client asks.
//!
//! `cargo run --bin checkout`, then
//!
//! ```text
//! curl -i -H 'Idempotency-Key: "order-7"' -H 'Content-Type: application/json' \
//!     -d '{"account": "ada", "cents": 995}' http://127.0.0.1:8080/payments
//! ```
//!
//! as often as you like: it is charged once. `docs/without-a-broker.md` says how.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::Parser;
use mmate_core::shutdown_signal;
use mmate_examples::idempotency_key::once;
use mmate_examples::program::{Failure, exit_code, listen};
use mmate_examples::telemetry;
use mmate_idempotency::{Idempotent, MemoryStore, SqliteStore};
use serde::{Deserialize, Serialize};

/// Takes payments over HTTP, each once per Idempotency-Key.
#[derive(Debug, Parser)]
#[command(name = "checkout", version)]
struct Options {
    /// Where it listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,

    /// A SQLite file for the records, which then outlive the process, and which several processes
    /// may share [default: in memory]
    #[arg(long, value_name = "FILE")]
    records: Option<PathBuf>,

    /// How long a key is blocked if the process that works on it dies, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 60_000)]
    lease: u64,

    /// How long the bank takes, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 200)]
    bank_takes: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    telemetry::start("warn").finish_and_clear();
    exit_code("checkout", run(options).await.map(|()| true))
}

async fn run(options: Options) -> Result<(), Failure> {
    let records = match &options.records {
        Some(file) => Idempotent::new(SqliteStore::open(file).await?),
        None => Idempotent::new(MemoryStore::new()),
    }
    .lease(Duration::from_millis(options.lease));
    records.prepare().await?;
    let bank = Bank { takes: Duration::from_millis(options.bank_takes), charged: Arc::default() };
    let service = Router::new()
        .route("/payments", post(pay).layer(from_fn_with_state(records.clone(), once)))
        .route("/accounts", get(accounts))
        .with_state(bank);
    let listener = listen(options.listen).await?;
    println!("http://{}/payments", listener.local_addr()?);
    axum::serve(listener, service).with_graceful_shutdown(shutdown_signal()).await?;
    // What clients have hung up on is finished all the same.
    records.finish(Duration::from_secs(30)).await;
    Ok(())
}

#[derive(Debug, Deserialize)]
struct Payment {
    account: String,
    cents: u64,
}

#[derive(Debug, Serialize)]
struct Receipt {
    /// The number of this charge to the account.
    charge: usize,
    cents: u64,
}

/// Knows nothing of keys: it charges whenever it is asked.
async fn pay(State(bank): State<Bank>, Json(payment): Json<Payment>) -> Response {
    match bank.charge(payment).await {
        Ok(receipt) => (StatusCode::CREATED, Json(receipt)).into_response(),
        Err(refused) => refused.into_response(),
    }
}

/// All charges, by account.
async fn accounts(State(bank): State<Bank>) -> Json<HashMap<String, Vec<u64>>> {
    Json(bank.charged.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// Where the money is.
#[derive(Debug, Clone)]
struct Bank {
    takes: Duration,
    charged: Arc<Mutex<HashMap<String, Vec<u64>>>>,
}

const MOST: u64 = 100_000;

impl Bank {
    async fn charge(&self, payment: Payment) -> Result<Receipt, (StatusCode, &'static str)> {
        tokio::time::sleep(self.takes).await;
        match payment {
            // So that a failure that passes can be tried out.
            Payment { cents: 0, .. } => Err((StatusCode::BAD_GATEWAY, "the bank does not answer")),
            Payment { cents, .. } if cents > MOST => {
                Err((StatusCode::PAYMENT_REQUIRED, "there is not as much on the account"))
            }
            Payment { account, cents } => {
                let mut charged = self.charged.lock().unwrap_or_else(PoisonError::into_inner);
                let of_account = charged.entry(account).or_default();
                of_account.push(cents);
                Ok(Receipt { charge: of_account.len(), cents })
            }
        }
    }
}
