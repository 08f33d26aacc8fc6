//! The most that is to be had of a transaction for many messages: by hand, and with nothing that a service needs besides.

use std::collections::HashSet;
use std::sync::Arc;

use lapin::message::Delivery;
use mmate_core::Envelope;
use sqlx::PgPool;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::PREFETCH;
use super::transaction::{INSERT, check, database};
use crate::Result;
use crate::by_hand::{Consumer, ack};
use crate::figures::Sample;
use crate::message::Order;
use crate::progress::Progress;
use crate::queue::Queue;
use crate::servers::Servers;

/// Up to so many messages a transaction: what has come when the one before is over.
const TOGETHER: usize = 100;

/// Begins, inserts the ids at once, applies the effect of each that was new by a statement of its own, commits, and
/// acknowledges each; on so many connections.
pub(super) async fn groups(servers: Servers, messages: u64, connections: u32) -> Result<Sample> {
    let messages = servers.messages(messages);
    let queue = Queue::filled(servers.amqp()?, messages).await?;
    let pool = database(&servers, connections).await?;
    let mut consumer = Consumer::of(queue).await?;
    let progress = Progress::new(messages);
    let (sender, receiver) = mpsc::channel::<Delivery>(PREFETCH.into());
    let receiver = Arc::new(Mutex::new(receiver));
    let mut workers: JoinSet<Result<()>> = JoinSet::new();
    for _ in 0..connections {
        let (pool, channel) = (pool.clone(), consumer.channel.clone());
        let (receiver, progress) = (Arc::clone(&receiver), progress.clone());
        workers.spawn(async move {
            loop {
                let mut group = Vec::with_capacity(TOGETHER);
                if receiver.lock().await.recv_many(&mut group, TOGETHER).await == 0 {
                    return Ok(());
                }
                apply(&pool, &group).await?;
                for delivery in group {
                    ack(&channel, delivery.delivery_tag, false)?;
                    progress.one();
                }
            }
        });
    }
    for _ in 0..messages {
        sender.send(consumer.next().await?).await?;
    }
    drop(sender);
    while let Some(ended) = workers.join_next().await {
        ended??;
    }
    let sample = progress.finished().await?;
    check(&pool, messages).await?;
    pool.close().await;
    consumer.used_up().await?;
    Ok(sample)
}

async fn apply(pool: &PgPool, group: &[Delivery]) -> Result<()> {
    let ids = group.iter().map(|delivery| {
        let id = delivery.properties.message_id().as_ref().ok_or("a message without an id")?;
        Ok(id.as_str().to_owned())
    });
    let ids = ids.collect::<Result<Vec<_>>>()?;
    let mut tx = pool.begin().await?;
    let claimed: Vec<String> = sqlx::query_scalar(
        "INSERT INTO bench_ids (scope, id) SELECT 'bench', id FROM UNNEST($1::text[]) AS id ORDER BY id \
         ON CONFLICT DO NOTHING RETURNING id",
    )
    .bind(&ids)
    .fetch_all(&mut *tx)
    .await?;
    let claimed: HashSet<_> = claimed.into_iter().collect();
    for (delivery, _) in group.iter().zip(&ids).filter(|(_, id)| claimed.contains(*id)) {
        let order: Order = Envelope::from_json(delivery.data.clone())?.payload()?;
        sqlx::query(INSERT)
            .bind(&order.order_id)
            .bind(&order.sku)
            .bind(i32::try_from(order.quantity)?)
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(())
}
