//! Consuming with the effect and the record in one transaction of PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use mmate_core::{
    Batch, BatchPolicy, Envelope, HandlerError, Json, State, Subscription, SubscriptionBuilder,
};
use mmate_idempotency::{GroupCommit, PostgresStore, Store, Transactional, Tx};
use sqlx::Postgres;
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::goal;
use super::groups_by_hand::groups;
use crate::Result;
use crate::by_hand::{Consumer, ack};
use crate::contest::{Case, Contender};
use crate::figures::{RATE, Sample};
use crate::goal::{Bound, Compare};
use crate::message::Order;
use crate::progress::Progress;
use crate::queue::Queue;
use crate::servers::Servers;
use crate::service;

const MESSAGES: u64 = 20_000;
const MESSAGES_IN_BATCHES: u64 = 60_000;
const PLAIN: &str = "mmate, no idempotency";
const ONE: &str = "by hand, a transaction each, 1 connection";
const FOUR: &str = "by hand, a transaction each, 4 connections";
const EIGHT: &str = "by hand, a transaction each, 8 connections";
const SIXTEEN: &str = "by hand, a transaction each, 16 connections";
const ALL_COLUMNS: &str = "by hand, a transaction each with mmate's record, 4 connections";
const GROUPS_BY_HAND: &str = "by hand, up to 100 in a transaction, 4 connections";
const EACH: &str = "mmate, a transaction each, 4 connections";
const GROUPS: &str = "mmate, group commit, 4 connections";
const BATCHES: &str = "mmate, batches with multi-row statements";

/// P4 and P6.
pub(crate) fn each() -> Case {
    Case {
        name: "P4",
        curve: None,
        title: "an effect by one statement, in a transaction with its record",
        contenders: vec![
            Contender::new(GROUPS, |servers| in_groups(servers, 100, 4)),
            Contender::new(EACH, |servers| one_by_one(servers, 4)),
            Contender::new(ALL_COLUMNS, |servers| by_hand(servers, 4, CLAIM_WITH_ALL_COLUMNS)),
            Contender::new(GROUPS_BY_HAND, |servers| groups(servers, MESSAGES, 4)),
            Contender::new(ONE, |servers| by_hand(servers, 1, CLAIM)),
            Contender::new(FOUR, |servers| by_hand(servers, 4, CLAIM)),
            Contender::new(EIGHT, |servers| by_hand(servers, 8, CLAIM)),
            Contender::new(SIXTEEN, |servers| by_hand(servers, 16, CLAIM)),
        ],
        goals: vec![
            goal(
                "P4",
                "group commit beside the best transaction per message",
                GROUPS,
                &[ONE, FOUR, EIGHT, SIXTEEN],
                RATE,
                Compare::Ratio,
                Bound::AtLeast(5.0),
            ),
            goal(
                "P4",
                "group commit beside one connection",
                GROUPS,
                &[ONE],
                RATE,
                Compare::Ratio,
                Bound::AtLeast(15.0),
            ),
            goal(
                "P6",
                "one message per transaction, on as many connections",
                EACH,
                &[FOUR],
                RATE,
                Compare::Ratio,
                Bound::AtLeast(1.0),
            ),
        ],
    }
}

pub(crate) fn batches() -> Case {
    Case {
        name: "P5",
        curve: None,
        title: "effects by multi-row statements, in a transaction with their records",
        contenders: vec![
            Contender::new(PLAIN, |servers| async move {
                let messages = servers.messages(MESSAGES_IN_BATCHES);
                let queue = Queue::filled(servers.amqp()?, messages).await?;
                service::measured(&servers, queue, messages, service::plain).await
            }),
            Contender::new(BATCHES, |servers| in_batches(servers, 400)),
        ],
        goals: vec![goal(
            "P5",
            "beside no idempotency",
            BATCHES,
            &[PLAIN],
            RATE,
            Compare::Ratio,
            Bound::AtLeast(0.65),
        )],
    }
}

/// A new table for effects, and a pool on its database.
pub(super) async fn database(servers: &Servers, connections: u32) -> Result<PgPool> {
    let options = PgPoolOptions::new()
        .max_connections(connections)
        .min_connections(connections)
        .test_before_acquire(false);
    let pool = options.connect(servers.postgres()?).await?;
    for statement in [
        "DROP TABLE IF EXISTS bench_ids",
        "CREATE TABLE bench_ids (scope text, id text, PRIMARY KEY (scope, id))",
        "DROP TABLE IF EXISTS bench_effects",
        "CREATE TABLE bench_effects (order_id text NOT NULL, sku text NOT NULL, quantity int NOT NULL)",
        "DROP TABLE IF EXISTS processed_messages",
    ] {
        sqlx::query(statement).execute(&pool).await?;
    }
    Ok(pool)
}

pub(super) const INSERT: &str =
    "INSERT INTO bench_effects (order_id, sku, quantity) VALUES ($1, $2, $3)";

pub(super) async fn check(pool: &PgPool, messages: u64) -> Result<()> {
    let effects: i64 =
        sqlx::query_scalar("SELECT count(*) FROM bench_effects").fetch_one(pool).await?;
    match u64::try_from(effects) == Ok(messages) {
        true => Ok(()),
        false => Err(format!("{effects} effects of {messages} messages").into()),
    }
}

async fn reserve(
    Json(order): Json<Order>,
    mut tx: Tx<Postgres>,
    State(progress): State<Progress>,
) -> Result<(), HandlerError> {
    sqlx::query(INSERT)
        .bind(&order.order_id)
        .bind(&order.sku)
        .bind(i32::try_from(order.quantity).map_err(HandlerError::permanent)?)
        .execute(&mut *tx)
        .await?;
    progress.one();
    Ok(())
}

/// Group commit, with up to so many messages in each of so many transactions.
pub(super) async fn in_groups(servers: Servers, size: usize, connections: u32) -> Result<Sample> {
    lingering(servers, size, connections, Duration::ZERO).await
}

/// The same, where a group that is not full waits for so long.
pub(super) async fn lingering(
    servers: Servers,
    size: usize,
    connections: u32,
    linger: Duration,
) -> Result<Sample> {
    let groups = GroupCommit::up_to(size).in_flight(connections as usize).linger(linger);
    let strategy = |pool| Transactional::new(pool).group_commit(groups);
    mmate(servers, connections, 512, strategy).await
}

/// A transaction for each message, so many at once.
pub(super) async fn one_by_one(servers: Servers, connections: u32) -> Result<Sample> {
    mmate(servers, connections, connections as usize, Transactional::new).await
}

async fn mmate(
    servers: Servers,
    connections: u32,
    concurrency: usize,
    strategy: impl FnOnce(PgPool) -> Transactional<Postgres>,
) -> Result<Sample> {
    let messages = servers.messages(MESSAGES);
    let queue = Queue::filled(servers.amqp()?, messages).await?;
    // One more for what goes on beside, such as purging.
    let pool = database(&servers, connections + 1).await?;
    let strategy = strategy(pool.clone());
    let finish =
        |s: SubscriptionBuilder| s.concurrency(concurrency).idempotent(strategy).handler(reserve);
    let sample = service::measured(&servers, queue, messages, finish).await?;
    check(&pool, messages).await?;
    pool.close().await;
    Ok(sample)
}

async fn reserve_all(
    batch: Batch<Order>,
    mut tx: Tx<Postgres>,
    State(progress): State<Progress>,
) -> Result<(), HandlerError> {
    let (mut ids, mut skus, mut quantities) = (Vec::new(), Vec::new(), Vec::new());
    for order in batch.values() {
        ids.push(order.order_id.as_str());
        skus.push(order.sku.as_str());
        quantities.push(i32::try_from(order.quantity).map_err(HandlerError::permanent)?);
    }
    sqlx::query(
        "INSERT INTO bench_effects (order_id, sku, quantity) \
         SELECT * FROM UNNEST($1::text[], $2::text[], $3::int[])",
    )
    .bind(&ids)
    .bind(&skus)
    .bind(&quantities)
    .execute(&mut *tx)
    .await?;
    progress.more(ids.len() as u64);
    Ok(())
}

/// Two batches at once, of up to so many messages each.
pub(super) async fn in_batches(servers: Servers, size: usize) -> Result<Sample> {
    let messages = servers.messages(MESSAGES_IN_BATCHES);
    let queue = Queue::filled(servers.amqp()?, messages).await?;
    let pool = database(&servers, 3).await?;
    let strategy = Transactional::new(pool.clone());
    let finish = |s: SubscriptionBuilder| -> Subscription {
        s.concurrency(2).idempotent(strategy).batch_handler(BatchPolicy::up_to(size), reserve_all)
    };
    let sample = service::measured(&servers, queue, messages, finish).await?;
    check(&pool, messages).await?;
    pool.close().await;
    Ok(sample)
}

/// The id, and nothing else.
const CLAIM: &str = "INSERT INTO bench_ids (scope, id) VALUES ('bench', $1) ON CONFLICT DO NOTHING";

/// All that mmate's record tells of a message to whoever looks for it later.
const CLAIM_WITH_ALL_COLUMNS: &str = "INSERT INTO processed_messages (scope, message_id, status, processed_at, \
     service_name, subscription, instance, correlation_id, message_type, fingerprint, owner, fence, attempt, taken_over, \
     claimed_at, lease_until, expires_at) VALUES ('bench', $1, 'done', now(), 'bench', 'bench.orders', 'host.4711', $1, \
     'OrderCreated', decode(md5($1), 'hex'), decode(md5($1), 'hex'), 1843200000000000, 1, false, 1800000000000, \
     1800000000000, 1800604800000) ON CONFLICT DO NOTHING";

/// What a careful team writes: begin, insert the id, apply the effect if it was new, commit,
/// acknowledge; on so many connections.
async fn by_hand(servers: Servers, connections: u32, claim: &'static str) -> Result<Sample> {
    let messages = servers.messages(MESSAGES);
    let queue = Queue::filled(servers.amqp()?, messages).await?;
    let pool = database(&servers, connections).await?;
    PostgresStore::new(pool.clone()).migrate().await?;
    let mut consumer = Consumer::of(queue).await?;
    let progress = Progress::new(messages);
    let slots = Arc::new(Semaphore::new(connections as usize));
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    for _ in 0..messages {
        let slot = Arc::clone(&slots).acquire_owned().await?;
        let delivery = consumer.next().await?;
        while let Some(ended) = tasks.try_join_next() {
            ended??;
        }
        let (pool, channel, progress) = (pool.clone(), consumer.channel.clone(), progress.clone());
        tasks.spawn(async move {
            let tag = delivery.delivery_tag;
            let id = delivery.properties.message_id().clone().ok_or("a message without an id")?;
            let order: Order = Envelope::from_json(delivery.data)?.payload()?;
            let mut tx = pool.begin().await?;
            let claimed = sqlx::query(claim).bind(id.as_str()).execute(&mut *tx).await?;
            if claimed.rows_affected() == 1 {
                sqlx::query(INSERT)
                    .bind(&order.order_id)
                    .bind(&order.sku)
                    .bind(i32::try_from(order.quantity)?)
                    .execute(&mut *tx)
                    .await?;
            }
            tx.commit().await?;
            ack(&channel, tag, false)?;
            progress.one();
            drop(slot);
            Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let sample = progress.finished().await?;
    check(&pool, messages).await?;
    pool.close().await;
    consumer.used_up().await?;
    Ok(sample)
}
