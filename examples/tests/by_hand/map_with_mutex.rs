//! A set of ids in the memory of the process, behind a mutex.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use mmate_core::{HandlerError, InProcess, Meta, Subscription};
use mmate_idempotency::{MemoryStore, SqliteStore, Tracked};

use crate::scene::{Bank, FailsOnce, one_order, one_order_twice, order, payments, start};

type Seen = Arc<Mutex<HashSet<String>>>;

/// Looks, works, remembers. Two copies look before either remembers.
fn check_then_act(seen: &Seen, bank: &Bank) -> Subscription {
    let (seen, bank) = (Arc::clone(seen), bank.clone());
    payments().handler(move |meta: Meta| {
        let (seen, bank) = (Arc::clone(&seen), bank.clone());
        async move {
            let id = meta.id.unwrap().to_string();
            if seen.lock().unwrap().contains(&id) {
                return Ok(());
            }
            bank.charge_slowly(&id).await;
            seen.lock().unwrap().insert(id);
            Ok::<(), HandlerError>(())
        }
    })
}

/// Remembers, then works. What fails is remembered too.
fn mark_then_act(seen: &Seen, bank: &Bank) -> Subscription {
    let (seen, bank, network) = (Arc::clone(seen), bank.clone(), FailsOnce::new());
    payments().handler(move |meta: Meta| {
        let (seen, bank, network) = (Arc::clone(&seen), bank.clone(), network.clone());
        async move {
            let id = meta.id.unwrap().to_string();
            if !seen.lock().unwrap().insert(id.clone()) {
                return Ok(());
            }
            network.check()?;
            bank.charge(&id).await;
            Ok::<(), HandlerError>(())
        }
    })
}

fn mmate(strategy: Tracked, bank: &Bank, network: Option<FailsOnce>) -> Subscription {
    let bank = bank.clone();
    payments().idempotent(strategy).handler(move |meta: Meta| {
        let (bank, network) = (bank.clone(), network.clone());
        async move {
            let id = meta.id.unwrap().to_string();
            match network {
                Some(network) => {
                    network.check()?;
                    bank.charge(&id).await;
                }
                None => bank.charge_slowly(&id).await,
            }
            Ok::<(), HandlerError>(())
        }
    })
}

#[tokio::test]
async fn check_then_act_charges_twice_when_two_copies_come_together() {
    let bank = Bank::default();
    one_order_twice([check_then_act(&Seen::default(), &bank)]).await;
    assert_eq!(bank.charges(), ["order-7", "order-7"]);

    let bank = Bank::default();
    one_order_twice([mmate(Tracked::new(MemoryStore::new()), &bank, None)]).await;
    assert_eq!(bank.charges(), ["order-7"]);
}

#[tokio::test]
async fn mark_then_act_loses_what_fails_once() {
    let bank = Bank::default();
    one_order(mark_then_act(&Seen::default(), &bank)).await;
    assert!(bank.charges().is_empty());

    let bank = Bank::default();
    one_order(mmate(Tracked::new(MemoryStore::new()), &bank, Some(FailsOnce::new()))).await;
    assert_eq!(bank.charges(), ["order-7"]);
}

/// `Tracked` in memory would charge twice as well, and promises no more; on SQLite it does not.
#[tokio::test]
async fn a_map_forgets_when_its_process_starts_again() {
    async fn over_a_restart(bank: &Bank, instance: impl AsyncFn() -> Subscription) {
        let broker = InProcess::new();
        for _ in 0..2 {
            let running = start(&broker, instance().await).await;
            running.publisher().publish(order()).await.unwrap();
            broker.idle().await;
            running.stop().await.unwrap();
        }
        assert!(!bank.charges().is_empty());
    }
    let bank = Bank::default();
    over_a_restart(&bank, async || check_then_act(&Seen::default(), &bank)).await;
    assert_eq!(bank.charges(), ["order-7", "order-7"]);

    let (bank, folder) = (Bank::default(), tempfile::tempdir().unwrap());
    over_a_restart(&bank, async || {
        let store = SqliteStore::open(folder.path().join("records.db")).await.unwrap();
        mmate(Tracked::new(store), &bank, None)
    })
    .await;
    assert_eq!(bank.charges(), ["order-7"]);
}
