//! Order and effects together: duplicates in a lane, and an active consumer that dies.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mmate_amqp::Amqp;
use mmate_core::conformance::disorder;
use mmate_core::transport::{QueueMode, QueuePlan};
use mmate_core::{
    Attempt, Context, FromContext, HandlerError, Json, OrderKey, Outcome, Outgoing, RetryPolicy,
    Service, Subscription, SubscriptionBuilder, TopicPattern, Transport,
};
use mmate_idempotency::{Transactional, Tx};
use mmate_test_support::{amqp_url, unique};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{Sqlite, SqlitePool};
use tokio::sync::Semaphore;

use crate::house::{House, Phase, counts_when, ended, everywhere, just_the_effect, script, stop};

everywhere! {
    a_late_duplicate_neither_runs_nor_stalls_its_lane,
    a_copy_behind_a_message_that_is_retried_becomes_a_duplicate_in_its_turn,
}

fn in_one_lane(house: &House) -> SubscriptionBuilder {
    house.builder().ordered_by(OrderKey::topic()).single_active_consumer()
}

/// S51
async fn a_late_duplicate_neither_runs_nor_stalls_its_lane(house: House) {
    let subscription = house.guard(in_one_lane(&house), just_the_effect()).await;
    let running = house.start([subscription]).await;
    for id in ["1", "2", "1", "3"] {
        house.publish(running.publisher(), id).await;
    }
    let counts = counts_when(&[&running], |counts| ended(counts) == 4).await;
    assert_eq!((counts.succeeded, counts.duplicates.total()), (3, 1));
    assert_eq!((counts.fetched, counts.deferred, counts.retried), (4, 0, 0));
    let effects: Vec<_> = house.effects().await.into_iter().map(|effect| effect.id).collect();
    assert_eq!(effects, ["1", "2", "3"]);
    stop([running]).await;
}

/// S51: the copy of one that is still being tried waits behind it in the lane, and is not deferred
/// over and over.
async fn a_copy_behind_a_message_that_is_retried_becomes_a_duplicate_in_its_turn(house: House) {
    let failures = Arc::new(Semaphore::new(3));
    let subscription = {
        let script = script(move |visit| {
            let failures = Arc::clone(&failures);
            async move {
                let fails = visit.id == "1" && visit.phase == Phase::BeforeEffect;
                if fails && let Ok(failure) = failures.try_acquire() {
                    failure.forget();
                    return Err(HandlerError::retryable("not yet"));
                }
                Ok(Outcome::Done)
            }
        });
        house.guard(in_one_lane(&house), script).await
    };
    let running = house.start([subscription]).await;
    for id in ["1", "1", "2"] {
        house.publish(running.publisher(), id).await;
    }
    let counts = counts_when(&[&running], |counts| ended(counts) == 3).await;
    assert_eq!((counts.succeeded, counts.duplicates.total()), (2, 1));
    assert_eq!((counts.retried, counts.deferred), (3, 0));
    let effects: Vec<_> = house.effects().await.into_iter().map(|effect| effect.id).collect();
    assert_eq!(effects, ["1", "2"]);
    stop([running]).await;
}

const KEYS: i64 = 10;
const EACH: i64 = 300;
const KILLS: u32 = 4;

/// F53: ten keys in order, and the process that has them is killed every three seconds. The others
/// go on where it was: in order, each effect once, nothing lost.
#[tokio::test(flavor = "multi_thread")]
async fn order_survives_the_death_of_the_active_process() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bank.db");
    let file = file.to_str().unwrap();
    let service = unique("bank");
    let pool = pool(file).await;
    let sql = "CREATE TABLE effects \
               (place INTEGER PRIMARY KEY, account INTEGER, number INTEGER, process INTEGER)";
    sqlx::query(sql).execute(&pool).await.unwrap();

    let mut processes = vec![Process::start(&service, file), Process::start(&service, file)];
    // As the processes declare it; whoever is first makes it.
    let pattern = TopicPattern::new(format!("{service}.#")).unwrap();
    let mut plan = QueuePlan::new(format!("{service}.book"), QueueMode::PerService)
        .bind("mmate.events", pattern);
    plan.single_active_consumer = true;
    let connection = Amqp::new(amqp_url()).connect("client").await.unwrap();
    connection.declare(&plan).await.unwrap();
    let client = Service::new(unique("client"))
        .subscribe(Subscription::per_instance("none", ["none"]).handler(nothing))
        .start(Amqp::new(amqp_url()))
        .await
        .unwrap();

    let (begin, mut kills) = (Instant::now(), 0);
    for number in 0..EACH {
        for account in 0..KEYS {
            let event = Outgoing::event(format!("{service}.booked"), "Booked", &number)
                .header("account-id", account)
                .id_text(format!("{account}-{number}"));
            client.publisher().publish(event).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
        if kills < KILLS && begin.elapsed() > Duration::from_secs(3) * (kills + 1) {
            kill_the_active(&mut processes, &pool, || Process::start(&service, file)).await;
            kills += 1;
        }
    }
    while kills < KILLS {
        tokio::time::sleep(Duration::from_secs(3)).await;
        kill_the_active(&mut processes, &pool, || Process::start(&service, file)).await;
        kills += 1;
    }

    let expected = KEYS * EACH;
    let begin = Instant::now();
    loop {
        let sql = "SELECT COUNT(*) FROM effects";
        let count: i64 = sqlx::query_scalar(sql).fetch_one(&pool).await.unwrap();
        if count >= expected {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(90), "{count} of {expected} took effect");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let sql = "SELECT account, number, process FROM effects ORDER BY place";
    let rows: Vec<(i64, i64, i64)> = sqlx::query_as(sql).fetch_all(&pool).await.unwrap();
    assert_eq!(rows.len(), usize::try_from(expected).unwrap(), "each takes effect once");
    let effects: Vec<_> =
        rows.iter().map(|(account, n, _)| (*account, u64::try_from(*n).unwrap())).collect();
    assert_eq!(disorder(&effects), []);
    let processes_that_worked: std::collections::HashSet<_> =
        rows.iter().map(|(_, _, process)| process).collect();
    assert!(processes_that_worked.len() > 2, "each kill hit a process that was at work");
    client.stop().await.unwrap();
}

async fn nothing() -> Result<(), HandlerError> {
    Ok(())
}

/// Kills the process that the last effect is from, and starts another in its place.
async fn kill_the_active(
    processes: &mut Vec<Process>,
    pool: &SqlitePool,
    replacement: impl Fn() -> Process,
) {
    let sql = "SELECT process FROM effects ORDER BY place DESC LIMIT 1";
    let active: i64 = sqlx::query_scalar(sql).fetch_one(pool).await.unwrap();
    let at = processes.iter().position(|process| i64::from(process.0.id()) == active);
    drop(processes.remove(at.unwrap()));
    processes.push(replacement());
}

/// A process of the service. Dropping it kills it (SIGKILL).
struct Process(Child);

impl Process {
    fn start(service: &str, file: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ordering::a_process_of_the_bank", "--ignored"])
            .env("BANK_SERVICE", service)
            .env("BANK_FILE", file)
            .stdout(Stdio::null())
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

async fn pool(file: &str) -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .busy_timeout(Duration::from_secs(30))
        .journal_mode(SqliteJournalMode::Wal);
    SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap()
}

/// The account that a message is about.
struct Account(i64);

impl FromContext for Account {
    async fn from_context(context: &Context) -> Result<Self, HandlerError> {
        let account = context.message().headers.int("account-id");
        account.map(Self).ok_or_else(|| HandlerError::permanent("no account"))
    }
}

/// Fails now and then, so that there is always some lane that waits.
async fn book(
    Account(account): Account,
    Attempt(attempt): Attempt,
    Json(number): Json<i64>,
    mut tx: Tx<Sqlite>,
) -> Result<(), HandlerError> {
    if attempt == 1 && fastrand::u32(0..50) == 0 {
        return Err(HandlerError::retryable(std::io::Error::other("now and then")));
    }
    sqlx::query("INSERT INTO effects (account, number, process) VALUES (?, ?, ?)")
        .bind(account)
        .bind(number)
        .bind(i64::from(std::process::id()))
        .execute(&mut *tx)
        .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it is a process of another test"]
async fn a_process_of_the_bank() {
    let service = std::env::var("BANK_SERVICE").unwrap();
    let pool = pool(&std::env::var("BANK_FILE").unwrap()).await;
    let subscription = Subscription::per_service("book", [format!("{service}.#")])
        .ordered_by(OrderKey::header("account-id"))
        .single_active_consumer()
        .retry(RetryPolicy::fixed(Duration::from_millis(100)).max_attempts(50))
        .concurrency(8)
        .idempotent(Transactional::new(pool))
        .handler(book);
    let service = Service::new(service).instance(unique("i")).subscribe(subscription);
    service.run(Amqp::new(amqp_url())).await.unwrap();
}
