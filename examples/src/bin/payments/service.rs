//! The service: it charges orders, and writes receipts of what it has charged.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use mmate_core::{
    HandlerError, Json, Outgoing, RetryPolicy, Running, Service, State, Subscription, Transport,
};
use mmate_examples::database::Statements;
use mmate_examples::program::Failure;
use mmate_idempotency::store::Store;
use mmate_idempotency::{Key, LockPermit, Locked, Outbox, OutboxMessage, Transactional, Tx};
use sqlx::Pool;

use crate::bank::Bank;
use crate::books::{self, Database};
use crate::options::WorkOptions;
use crate::order::{Charge, Order};

/// What the shop tells of orders under.
pub(crate) const PLACED: &str = "order.placed.eu";

/// What is told of payments under.
const RECEIVED: &str = "payment.received.eu";

/// Starts it.
pub(crate) async fn start(
    database: &Database,
    bank: Bank,
    locks: Arc<dyn Store>,
    work: &WorkOptions,
    transport: Arc<dyn Transport>,
) -> Result<Running, Failure> {
    let service = match database {
        Database::Sqlite(pool) => service(pool, bank, locks, work),
        Database::Postgres(pool) => service(pool, bank, locks, work),
        Database::MariaDb(pool) => service(pool, bank, locks, work),
    };
    Ok(service.start(transport).await?)
}

/// `pay` has a lock by order around a transaction by message, and an outbox in that. `receipts` needs no lock, since it does
/// nothing outside of its transaction.
fn service<DB: Statements>(
    pool: &Pool<DB>,
    bank: Bank,
    locks: Arc<dyn Store>,
    work: &WorkOptions,
) -> Service {
    // About a quarter of an hour in all.
    let retry = RetryPolicy::exponential(Duration::from_millis(250), Duration::from_secs(60));
    let order = Locked::by(locks, Key::json_pointer("/order_id")).scope("orders");
    let pay = Subscription::per_service("pay", ["order.placed.*"])
        .concurrency(work.concurrency.into())
        .prefetch(NonZeroU16::MIN.saturating_add(2 * work.concurrency))
        .retry(retry.max_attempts(20))
        .middleware(Outbox::new(pool.clone()))
        .middleware(order.lease(work.lease()))
        .idempotent(Transactional::new(pool.clone()))
        .handler(pay::<DB>);
    let receipts = Subscription::per_service("receipts", ["payment.received.*"])
        .idempotent(Transactional::new(pool.clone()))
        .handler(write_receipt::<DB>);
    Service::new("payments").state(bank).subscribe(pay).subscribe(receipts)
}

/// The message's id says whether this message was handled; the lock, that nobody else is at this order; the row, whether
/// the order is paid, by whichever message; the provider's key, that a charge whose answer got lost is not made again.
async fn pay<DB: Statements>(
    Json(order): Json<Order>,
    State(bank): State<Bank>,
    lock: LockPermit,
    mut tx: Tx<DB>,
    outbox: Outbox<DB>,
) -> Result<(), HandlerError> {
    if books::is_paid::<DB>(&mut tx, &order.order_id).await? {
        return Ok(());
    }
    let charge = bank.charge(&order).await?;
    if !books::pay::<DB>(&mut tx, &charge, lock.fence_i64()).await? {
        return Err(HandlerError::retryable("the order was taken over by somebody else"));
    }
    let received = Outgoing::event(RECEIVED, "PaymentReceived", &charge);
    outbox.publish(&mut tx, OutboxMessage::new(received).key(&*charge.order_id)).await?;
    Ok(())
}

async fn write_receipt<DB: Statements>(
    Json(charge): Json<Charge>,
    mut tx: Tx<DB>,
) -> Result<(), HandlerError> {
    Ok(books::write_receipt::<DB>(&mut tx, &charge).await?)
}
