//! The checker, pointed at a service.
//!
//! Orders are published twice each while connections are cut and handlers fail now and then. Nobody
//! asks the service how it went: effects are read from its table, and the checker tells.
//!
//! ```console
//! $ checked               # as promised
//! $ checked --careless    # NOT AS PROMISED, with the history of an order that was paid twice
//! ```
//!
//! With `--careless` the handler writes through a connection of its own, beside the transaction.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use mmate_core::checker::{Checker, EndState, Event, Promise, What};
use mmate_core::{
    BoxError, HandlerError, InProcess, Json, Outgoing, RetryPolicy, Service, State, Subscription,
};
use mmate_idempotency::{Transactional, Tx};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{Sqlite, SqlitePool};

#[derive(Parser)]
#[command(about = "The checker, pointed at a service.")]
struct Options {
    /// Write beside the transaction.
    #[arg(long)]
    careless: bool,
    /// How many orders are published.
    #[arg(long, default_value_t = 500)]
    orders: u32,
}

#[tokio::main]
async fn main() -> Result<ExitCode, BoxError> {
    let options = Options::parse();
    let folder = tempfile::tempdir()?;
    let orders = database(&folder.path().join("orders.db")).await?;
    let payments = database(&folder.path().join("payments.db")).await?;
    let subscription = Subscription::per_service("pay", ["order.placed.*"])
        .retry(RetryPolicy::fixed(Duration::from_millis(5)))
        .idempotent(Transactional::new(orders.clone()));
    let subscription = match options.careless {
        true => subscription.handler(pay_carelessly),
        false => subscription.handler(pay),
    };
    let broker = InProcess::new();
    let service = Service::new("shop").state(payments.clone()).subscribe(subscription);
    let running = service.start(broker.clone()).await?;

    // The publisher keeps the books.
    let mut events = Vec::new();
    for number in 0..options.orders {
        let id = format!("order-{number}");
        events.push(Event::attempted(&*id));
        for _copy in 0..2 {
            let message = Outgoing::event("order.placed.eu", "OrderPlaced", &number).id_text(&id);
            running.publisher().publish(message).await?;
            events.push(Event::confirmed(&*id));
        }
        if number % 100 == 50 {
            events.push(Event::fault("the network"));
            broker.cut();
        }
    }
    broker.idle().await;
    running.stop().await?;

    // What there is, read from where it is.
    for database in [orders, payments] {
        let paid: Vec<String> =
            sqlx::query_scalar("SELECT order_id FROM payments").fetch_all(&database).await?;
        events.extend(paid.into_iter().map(Event::effect));
    }
    let letters = broker.dead_letters("shop.pay");
    let letters = letters.iter().filter_map(|letter| letter.properties.message_id.as_ref());
    events.extend(letters.map(|id| Event::now(What::Parked, id.to_string())));

    let mut checker = Checker::new(Promise::EffectOnce);
    events.iter().for_each(|event| checker.take(event));
    let verdict = checker.verdict(&EndState::default());
    println!("{verdict}");
    for (id, history) in verdict.convict(1, &events) {
        println!("{id}:");
        history.iter().for_each(|event| println!("    {event}"));
    }
    Ok(if verdict.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const PAY: &str = "INSERT INTO payments (order_id) VALUES (?)";

async fn pay(Json(number): Json<u32>, mut tx: Tx<Sqlite>) -> Result<(), HandlerError> {
    sqlx::query(PAY).bind(format!("order-{number}")).execute(&mut *tx).await?;
    now_and_then()
}

async fn pay_carelessly(
    Json(number): Json<u32>,
    State(payments): State<SqlitePool>,
    mut tx: Tx<Sqlite>,
) -> Result<(), HandlerError> {
    sqlx::query("SELECT count(*) FROM payments").execute(&mut *tx).await?;
    sqlx::query(PAY).bind(format!("order-{number}")).execute(&payments).await?;
    now_and_then()
}

/// Something fails after the effect, before the commit.
fn now_and_then() -> Result<(), HandlerError> {
    match fastrand::u32(..10) {
        0 => Err(HandlerError::retryable("now and then")),
        _ => Ok(()),
    }
}

/// `payments` has no unique constraint on purpose: a second effect must show.
async fn database(path: &std::path::Path) -> Result<SqlitePool, BoxError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await?;
    sqlx::query("CREATE TABLE payments (order_id TEXT NOT NULL)").execute(&pool).await?;
    Ok(pool)
}
