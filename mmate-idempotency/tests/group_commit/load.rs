//! Everything at once.

use std::collections::HashMap;
use std::time::Duration;

use mmate_core::conformance::disorder;
use mmate_core::{
    Attempt, Chaos, HandlerError, OrderKey, Outcome, Publisher, RetryPolicy, Running, Service,
    Subscription,
};
use mmate_idempotency::{GroupCommit, Transactional};

use crate::bench::{Act, Bench, Visit, act, counts_when, pool_of};
use crate::broker::Broker;

/// Fails in every way now and then; what ends in a 7 fails for ever.
fn moody() -> Act {
    act(async |visit: Visit, tx| {
        if visit.id.ends_with('7') {
            return Err(HandlerError::permanent("poison"));
        }
        if visit.attempt > 20 {
            return Ok(Outcome::Done);
        }
        match fastrand::u8(0..40) {
            0 => Err(HandlerError::retryable("not now")),
            1 => panic!("as the test wants it"),
            2 => std::future::pending().await,
            3 => Ok(Outcome::Defer { after: Duration::from_millis(5) }),
            4 => Ok(Outcome::Retry { after: None }),
            5 => {
                tokio::spawn(async move {
                    tokio::task::yield_now().await;
                    drop(tx);
                });
                Ok(Outcome::Done)
            }
            _ => Ok(Outcome::Done),
        }
    })
}

/// An instance with a pool of its own, whose handlers have so long.
async fn instance(bench: &Bench, script: Act, timeout: Duration) -> Running {
    let pool = pool_of(bench.folder.path(), 3, &bench.hooks).await;
    let subscription = bench
        .builder()
        .retry(RetryPolicy::fixed(Duration::from_millis(10)).max_attempts(1000))
        .timeout(timeout)
        .concurrency(24)
        .idempotent(Transactional::new(pool).group_commit(GroupCommit::up_to(16)))
        .handler(bench.handler(script));
    bench.start_with(subscription, Duration::from_secs(30)).await
}

async fn assert_each_once(bench: &Bench, messages: usize) {
    let mut effects = HashMap::new();
    for id in bench.effects().await {
        *effects.entry(id).or_insert(0) += 1;
    }
    for n in 0..messages {
        let id = format!("{n}");
        let expected = i32::from(!id.ends_with('7'));
        assert_eq!(effects.remove(&id).unwrap_or(0), expected, "{id}");
    }
    assert!(effects.is_empty(), "{effects:?}");
}

/// S47, S27: two instances, duplicates, lost acknowledgements, and every way to fail.
#[tokio::test(flavor = "multi_thread")]
async fn under_chaos_each_message_has_one_effect_and_every_delivery_is_accounted_for() {
    const MESSAGES: usize = 400;
    let bench = Bench::new().await;
    let first = instance(&bench, moody(), Duration::from_millis(60)).await;
    let second = instance(&bench, moody(), Duration::from_millis(60)).await;
    let broker = bench.broker.inner();
    broker.chaos(Chaos::new().duplicates(0.2).dropped_acks(0.1).seed(27));
    for n in 0..MESSAGES {
        bench.publish(first.publisher(), &[&format!("{n}")]).await;
        if n % 10 == 0 {
            bench.publish(second.publisher(), &[&format!("{n}")]).await;
        }
    }
    let idle = broker.idle();
    tokio::pin!(idle);
    loop {
        // The looks in between are the law's.
        counts_when(&[&first, &second], |_| true).await;
        tokio::select! {
            () = &mut idle => break,
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
        }
    }
    let counts = counts_when(&[&first, &second], |counts| counts.in_flight == 0).await;
    assert_each_once(&bench, MESSAGES).await;
    assert_eq!(counts.succeeded, MESSAGES as u64 * 9 / 10);
    assert!(counts.retried > 0 && counts.deferred > 0, "{counts:?}");
    assert!(counts.duplicates.total() > 0, "{counts:?}");
    first.stop().await.unwrap();
    second.stop().await.unwrap();
    bench.assert_no_connection_is_dirty().await;
}

/// S49, F14: instances come and go under load; none is lost, none is doubled, nothing is refused.
async fn rolling_restart(bench: Bench) {
    const MESSAGES: usize = 600;
    let calm = || {
        act(async |_, _| {
            tokio::task::yield_now().await;
            Ok(Outcome::Done)
        })
    };
    let mut running = Vec::new();
    for _ in 0..3 {
        running.push(instance(&bench, calm(), Duration::from_secs(60)).await);
    }
    let publisher = Publisher::connect(&bench.broker, "p").await.unwrap();
    let mut stats: Vec<_> = running.iter().map(|one| one.stats().clone()).collect();
    for n in 0..MESSAGES {
        let id = format!("{n}");
        if n % 50 == 49 {
            running.remove(0).stop().await.unwrap();
            running.push(instance(&bench, calm(), Duration::from_secs(60)).await);
            stats.push(running[2].stats().clone());
        }
        bench.publish(&publisher, &[&id]).await;
        if n % 5 == 0 {
            bench.publish(&publisher, &[&id]).await;
        }
    }
    let began = std::time::Instant::now();
    loop {
        let done: u64 = stats.iter().map(|one| one.total().succeeded).sum();
        let copies: u64 = stats.iter().map(|one| one.total().duplicates.total()).sum();
        assert!(stats.iter().all(|one| one.total().is_conserved()));
        if done == MESSAGES as u64 && copies >= MESSAGES as u64 / 5 {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{done} done, {copies} copies");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for one in running {
        one.stop().await.unwrap();
    }
    let effects = bench.effects().await;
    let distinct: std::collections::HashSet<_> = effects.iter().collect();
    assert_eq!((effects.len(), distinct.len()), (MESSAGES, MESSAGES));
    let failed: u64 = stats.iter().map(|one| one.total().retried + one.total().dead_lettered).sum();
    assert_eq!(failed, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_loses_nothing_and_doubles_nothing() {
    rolling_restart(Bench::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_on_rabbitmq_loses_nothing_and_doubles_nothing() {
    rolling_restart(Bench::on(Broker::rabbitmq()).await).await;
}

/// S50 and S27 with a real broker: random failures and copies; none lost, none doubled.
#[tokio::test(flavor = "multi_thread")]
async fn on_rabbitmq_random_failures_and_copies_lose_nothing_and_double_nothing() {
    const MESSAGES: usize = 300;
    let bench = Bench::on(Broker::rabbitmq()).await;
    let first = instance(&bench, moody(), Duration::from_millis(60)).await;
    let second = instance(&bench, moody(), Duration::from_millis(60)).await;
    for n in 0..MESSAGES {
        bench.publish(first.publisher(), &[&format!("{n}")]).await;
        if n % 5 == 0 {
            bench.publish(second.publisher(), &[&format!("{n}")]).await;
        }
    }
    let copies = MESSAGES as u64 / 5;
    let poison = MESSAGES as u64 / 10;
    let counts = counts_when(&[&first, &second], |counts| {
        counts.succeeded == MESSAGES as u64 - poison
            && counts.duplicates.total() + counts.dead_lettered == copies + poison
            && counts.in_flight == 0
    })
    .await;
    assert!(counts.retried > 0, "{counts:?}");
    assert_each_once(&bench, MESSAGES).await;
    first.stop().await.unwrap();
    second.stop().await.unwrap();
}

/// S51: many lanes share transactions, and within each the order is that of the messages, whatever
/// fails.
#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_lane_take_effect_in_their_order() {
    const LANES: i64 = 12;
    const EACH: i64 = 30;
    let bench = Bench::new().await;
    sqlx::query("CREATE TABLE booked (place INTEGER PRIMARY KEY, account INTEGER, number INTEGER)")
        .execute(&bench.pool)
        .await
        .unwrap();
    let book = async |meta: mmate_core::Meta,
                      Attempt(attempt): Attempt,
                      mut tx: mmate_idempotency::Tx<sqlx::Sqlite>| {
        let id = meta.id.unwrap().to_string();
        let (account, number) = id.split_once('-').unwrap();
        sqlx::query("INSERT INTO booked (account, number) VALUES (?, ?)")
            .bind(account.parse::<i64>().unwrap())
            .bind(number.parse::<i64>().unwrap())
            .execute(&mut *tx)
            .await?;
        match attempt == 1 && fastrand::u8(0..20) == 0 {
            true => Err(HandlerError::retryable("now and then")),
            false => Ok(()),
        }
    };
    let subscription = Subscription::per_service("q", [format!("{}.#", bench.service)])
        .retry(RetryPolicy::fixed(Duration::from_millis(5)).max_attempts(50))
        .ordered_by(OrderKey::header("account"))
        .single_active_consumer()
        .concurrency(12)
        .idempotent(bench.strategy(GroupCommit::default()))
        .handler(book);
    let service = Service::new(bench.service.as_str()).subscribe(subscription);
    let running = service.start(bench.broker.clone()).await.unwrap();
    for number in 0..EACH {
        for account in 0..LANES {
            let id = format!("{account}-{number}");
            let copies = if number % 7 == 0 { 2 } else { 1 };
            for _ in 0..copies {
                let message = bench.message(&id).header("account", account);
                running.publisher().publish(message).await.unwrap();
            }
        }
    }
    let expected = LANES * EACH;
    counts_when(&[&running], |counts| counts.succeeded == expected.unsigned_abs()).await;
    tokio::time::timeout(Duration::from_secs(60), bench.broker.inner().idle()).await.unwrap();
    let sql = "SELECT account, number FROM booked ORDER BY place";
    let rows: Vec<(i64, i64)> = sqlx::query_as(sql).fetch_all(&bench.pool).await.unwrap();
    let effects: Vec<_> = rows.iter().map(|(account, n)| (*account, n.unsigned_abs())).collect();
    assert_eq!(disorder(&effects), []);
    assert_eq!(rows.len(), usize::try_from(expected).unwrap());
    running.stop().await.unwrap();
}
