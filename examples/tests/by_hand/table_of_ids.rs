//! A table with the id as its key, and the effect outside of its transaction.

use mmate_core::{HandlerError, Meta, Subscription};
use mmate_idempotency::{Transactional, Tx};
use sqlx::Sqlite;

use crate::scene::{Bank, Database, FailsOnce, one_order, payments};

/// When the id is written.
#[derive(Clone, Copy)]
enum Mark {
    Before,
    After,
}

/// The id is committed before the card is charged, or after; what comes second fails once.
fn by_hand(mark: Mark, database: &Database, bank: &Bank) -> Subscription {
    let (pool, bank, network) = (database.pool.clone(), bank.clone(), FailsOnce::new());
    payments().handler(move |meta: Meta| {
        let (pool, bank, network) = (pool.clone(), bank.clone(), network.clone());
        async move {
            let id = meta.id.unwrap().to_string();
            let insert = sqlx::query("INSERT INTO processed VALUES (?) ON CONFLICT DO NOTHING");
            match mark {
                Mark::Before => {
                    if insert.bind(&id).execute(&pool).await?.rows_affected() == 0 {
                        return Ok(());
                    }
                    network.check()?;
                    bank.charge(&id).await;
                }
                Mark::After => {
                    let seen: i64 =
                        sqlx::query_scalar("SELECT count(*) FROM processed WHERE id = ?")
                            .bind(&id)
                            .fetch_one(&pool)
                            .await?;
                    if seen > 0 {
                        return Ok(());
                    }
                    bank.charge(&id).await;
                    network.check()?;
                    insert.bind(&id).execute(&pool).await?;
                }
            }
            Ok::<(), HandlerError>(())
        }
    })
}

/// The effect goes through the transaction of the record, and fails before or after it.
fn mmate(mark: Mark, database: &Database) -> Subscription {
    let (strategy, network) = (Transactional::new(database.pool.clone()), FailsOnce::new());
    payments().idempotent(strategy).handler(move |meta: Meta, mut tx: Tx<Sqlite>| {
        let network = network.clone();
        async move {
            let id = meta.id.unwrap().to_string();
            let charge = sqlx::query("INSERT INTO charges VALUES (?)").bind(id);
            match mark {
                Mark::Before => {
                    network.check()?;
                    charge.execute(&mut *tx).await?;
                }
                Mark::After => {
                    charge.execute(&mut *tx).await?;
                    network.check()?;
                }
            }
            Ok::<(), HandlerError>(())
        }
    })
}

#[tokio::test]
async fn an_id_that_is_committed_before_the_effect_loses_it() {
    let (database, bank) = (Database::new().await, Bank::default());
    one_order(by_hand(Mark::Before, &database, &bank)).await;
    assert!(bank.charges().is_empty());

    let database = Database::new().await;
    one_order(mmate(Mark::Before, &database)).await;
    assert_eq!(database.charges().await, 1);
}

#[tokio::test]
async fn an_id_that_is_committed_after_the_effect_doubles_it() {
    let (database, bank) = (Database::new().await, Bank::default());
    one_order(by_hand(Mark::After, &database, &bank)).await;
    assert_eq!(bank.charges(), ["order-7", "order-7"]);

    let database = Database::new().await;
    one_order(mmate(Mark::After, &database)).await;
    assert_eq!(database.charges().await, 1);
}
