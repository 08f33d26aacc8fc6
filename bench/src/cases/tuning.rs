//! What the knobs do: curves, from which the defaults and the advice in the documentation come.

use std::time::Duration;

use mmate_core::{HandlerError, Json, State, SubscriptionBuilder};

use super::{consume, dedup, latency, transaction};
use crate::Result;
use crate::contest::{Case, Contender, Curve};
use crate::figures::{RATE, Sample};
use crate::message::Order;
use crate::progress::Progress;
use crate::queue::Queue;
use crate::servers::Servers;
use crate::service;

pub(crate) fn cases() -> [Case; 6] {
    [prefetch(), concurrency(), groups(), batches(), redis(), load()]
}

fn curve(
    name: &'static str,
    title: &'static str,
    curve: Curve,
    contenders: Vec<Vec<Contender>>,
) -> Case {
    let contenders = contenders.into_iter().flatten().collect();
    Case { name, title, curve: Some(curve), contenders, goals: Vec::new() }
}

const fn rate_against(axis: &'static str) -> Curve {
    Curve { axis, figures: &[RATE] }
}

fn prefetch() -> Case {
    const VALUES: &[u32] = &[10, 30, 100, 200, 500, 1000, 3000];
    curve(
        "prefetch",
        "messages a second against the prefetch",
        rate_against("prefetch"),
        vec![
            Contender::curve("mmate, typed handler", VALUES, |servers, prefetch| async move {
                consume::mmate(servers, prefetch.try_into()?).await
            }),
            Contender::curve(
                "lapin, typed, acks written",
                VALUES,
                |servers, prefetch| async move { consume::typed(servers, prefetch.try_into()?).await },
            ),
        ],
    )
}

fn concurrency() -> Case {
    const VALUES: &[u32] = &[1, 4, 16, 64, 256];
    curve(
        "concurrency",
        "messages a second against the concurrency, with a handler that waits for 2 ms",
        rate_against("concurrency (the prefetch is 1,000)"),
        vec![Contender::curve("mmate, a handler that waits", VALUES, waiting)],
    )
}

async fn wait(
    Json(order): Json<Order>,
    State(progress): State<Progress>,
) -> Result<(), HandlerError> {
    tokio::time::sleep(Duration::from_millis(2)).await;
    std::hint::black_box(order);
    progress.one();
    Ok(())
}

async fn waiting(servers: Servers, concurrency: u32) -> Result<Sample> {
    // Two seconds or so each.
    let messages = servers.messages(u64::from(concurrency) * 600);
    let queue = Queue::filled(servers.amqp()?, messages).await?;
    let finish = |s: SubscriptionBuilder| s.concurrency(concurrency as usize).handler(wait);
    service::measured(&servers, queue, messages, finish).await
}

fn groups() -> Case {
    const SIZES: &[u32] = &[10, 30, 100, 200, 400];
    const CONNECTIONS: &[u32] = &[1, 2, 4, 8, 16];
    const LINGERS: &[u32] = &[1, 3, 10];
    curve(
        "groups",
        "messages a second against the size of a group, connections, and the linger",
        rate_against("messages in a transaction at the most, connections, or ms"),
        vec![
            Contender::curve("group commit, 4 connections, size", SIZES, |servers, size| {
                transaction::in_groups(servers, size as usize, 4)
            }),
            Contender::curve("group commit up to 100, connections", CONNECTIONS, |servers, n| {
                transaction::in_groups(servers, 100, n)
            }),
            Contender::curve("group commit up to 100, linger in ms", LINGERS, |servers, ms| {
                transaction::lingering(servers, 100, 4, Duration::from_millis(ms.into()))
            }),
            Contender::curve("a transaction each, connections", CONNECTIONS, |servers, n| {
                transaction::one_by_one(servers, n)
            }),
        ],
    )
}

fn batches() -> Case {
    const SIZES: &[u32] = &[10, 30, 100, 200, 400];
    curve(
        "batches",
        "messages a second against the size of a batch, with statements of many rows",
        rate_against("messages in a batch at the most"),
        vec![Contender::curve("batches, 2 connections", SIZES, |servers, size| {
            transaction::in_batches(servers, size as usize)
        })],
    )
}

fn redis() -> Case {
    const VALUES: &[u32] = &[4, 16, 64, 256, 1000];
    curve(
        "redis",
        "messages a second against the concurrency, with records in Redis",
        rate_against("concurrency (the prefetch is 1,000)"),
        vec![Contender::curve("Tracked in Redis", VALUES, |servers, concurrency| {
            dedup::in_redis(servers, concurrency as usize)
        })],
    )
}

fn load() -> Case {
    const RATES: &[u32] = &[500, 1_000, 2_000, 5_000, 10_000, 20_000];
    curve(
        "load",
        "from publishing to the handler, against the load",
        Curve {
            axis: "messages published a second (above 1,000 in gusts, one each millisecond)",
            figures: &[latency::MIDDLE, latency::HIGH],
        },
        vec![
            Contender::curve("mmate, typed handler", RATES, latency::mmate),
            Contender::curve("lapin, typed, acks written", RATES, latency::by_hand),
        ],
    )
}
