//! What is told before anything starts.

use mmate_core::{HandlerError, InProcess, Service, Subscription};
use mmate_idempotency::{Key, LockPermit, Locked, MemoryStore, Permit, Tracked, Transactional};

use crate::scene::{by_order, orders};

async fn refused(subscription: Subscription) -> String {
    let service = Service::new("s").subscribe(subscription);
    service.start(InProcess::new()).await.unwrap_err().to_string()
}

async fn nothing() -> Result<(), HandlerError> {
    Ok(())
}

#[tokio::test]
async fn a_lock_with_a_scope_that_is_none_does_not_start() {
    for name in ["", "a/b", "a\0b", &"x".repeat(201)] {
        let lock = by_order(MemoryStore::new()).scope(name);
        let error = refused(orders("q").middleware(lock).handler(nothing)).await;
        assert!(error.contains("the scope") && error.contains("1 to 200 bytes"), "{error}");
    }
}

/// S36
#[tokio::test]
async fn a_key_that_can_be_no_messages_does_not_start() {
    for (key, told) in [
        (Key::json_pointer("order/id"), "\"order/id\" is no JSON pointer"),
        (Key::json_pointer("/a~2"), "\"/a~2\" is no JSON pointer"),
        (Key::json_pointer("/a~"), "\"/a~\" is no JSON pointer"),
        (Key::header(""), "has no name"),
        (Key::all([]), "the same key for every message"),
        (Key::all([Key::message_id(), Key::json_pointer("x")]), "\"x\" is no JSON pointer"),
    ] {
        let strategy = Tracked::new(MemoryStore::new()).key(key.clone());
        let error = refused(orders("q").idempotent(strategy).handler(nothing)).await;
        assert!(error.contains(told), "{error}");
        let lock = Locked::by(MemoryStore::new(), key);
        let error = refused(orders("q").middleware(lock).handler(nothing)).await;
        assert!(error.contains(told), "{error}");
    }
}

#[tokio::test]
async fn a_handler_that_takes_a_lock_and_has_none_does_not_start() {
    let handler = async |_: LockPermit| Ok::<(), HandlerError>(());
    let error = refused(orders("q").handler(handler)).await;
    assert!(error.contains("LockPermit") && error.contains("Locked::by(store, key)"), "{error}");
    // The permit of a record is no lock.
    let strategy = Tracked::new(MemoryStore::new());
    refused(orders("q").idempotent(strategy).handler(handler)).await;
}

/// There is no lease in it that a fence could be of.
#[tokio::test]
async fn a_handler_that_takes_a_permit_and_has_a_transaction_does_not_start() {
    let pool = sqlx::SqlitePool::connect_lazy("sqlite::memory:").unwrap();
    let handler = async |_: Permit| Ok::<(), HandlerError>(());
    let error = refused(orders("q").idempotent(Transactional::new(pool)).handler(handler)).await;
    assert!(error.contains("Permit") && error.contains("Tracked::new(store)"), "{error}");
}
