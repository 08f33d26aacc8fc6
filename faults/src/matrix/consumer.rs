//! The process: a service with one subscription, and a failpoint.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mmate_amqp::Amqp;
use mmate_core::{
    Attempt, Context, Handler, HandlerError, Meta, Middleware, Next, Outcome, RetryPolicy, Running,
    Service, State, Subscription, SubscriptionBuilder, shutdown_signal,
};
use mmate_idempotency::{
    GroupCommit, Key, Locked, Tracked, Transactional, TransactionalDatabase, Tx,
};
use sqlx::sqlite::SqlitePoolOptions;
use sqlx::{MySql, Pool, Postgres, Sqlite, SqlitePool};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::cell::{Boundary, Fault, Guard, Records};
use super::inside::{Visiting, key_of};
use super::place::{mysql, postgres};
use super::point::{Point, Strike};
use super::role::{ANSWER_TIMEOUT, Defect, LEASE, Role, SUBSCRIPTION};
use super::wire::Wire;
use super::{store, transport};
use crate::proxy::Proxy;

/// Runs the service until SIGTERM. Each line on standard input asks how many deliveries are in hand; its end ends the
/// process.
///
/// # Panics
/// If the service does not start or stop.
pub async fn consume(role: Role) {
    let signal = shutdown_signal();
    let point = Arc::new(Point::new(role.fault));
    let mut running = start(&role, &point).await;
    point.arm();
    println!("ready");
    let stats = running.stats().clone();
    let asked = async {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(_)) = lines.next_line().await {
            println!("flight {}", stats.total().in_flight);
        }
    };
    tokio::select! {
        () = signal => {}
        () = running.failed() => {}
        () = asked => std::process::exit(3),
    }
    let stats = running.stats().clone();
    running.stop().await.unwrap();
    let counts = stats.total();
    println!("ended {} {}", counts.is_conserved(), counts.dead_lettered);
}

async fn start(role: &Role, point: &Arc<Point>) -> Running {
    let proxy = Arc::new(Proxy::before(&role.amqp).await);
    let way = transport::Way { point: Arc::clone(point), proxy: Arc::clone(&proxy) };
    let inner = Amqp::new(proxy.url());
    Service::new(role.service.as_str())
        .instance(role.instance.as_str())
        .state(Handling { role: role.clone(), point: Arc::clone(point) })
        .state(role.place.file().await)
        .subscribe(subscription(role, point).await)
        .start(transport::Pointed { inner, way })
        .await
        .unwrap()
}

async fn subscription(role: &Role, point: &Arc<Point>) -> Subscription {
    let at_a_time = match role.guard {
        // So that a second effect is that of the message which the fault happened to.
        Guard::Tracked(_) | Guard::Locked(_) => 1,
        Guard::Transactional(_) => 2,
        Guard::GroupCommit(_) => 4,
    };
    let mut builder = Subscription::per_service(SUBSCRIPTION, [role.topic()])
        .prefetch(4.try_into().unwrap())
        .concurrency(at_a_time)
        .retry(RetryPolicy::fixed(Duration::from_millis(50)))
        .middleware(Around { point: Arc::clone(point), is_in_process: is_in_process(role.guard) });
    let waits_for_the_handler = |boundary| role.meets(boundary, Fault::Lost);
    if [Boundary::HandlerStarted, Boundary::EffectApplied].into_iter().any(waits_for_the_handler) {
        builder = builder.timeout(ANSWER_TIMEOUT);
    }
    match (role.guard.is_transactional(), role.guard.records()) {
        (true, Records::Postgres) => {
            let url = Wire::before(&role.place.url, Records::Postgres, Arc::clone(point)).await;
            in_transactions(role, builder, postgres(&url, 4).await, in_postgres)
        }
        (true, Records::MariaDb) => {
            let url = Wire::before(&role.place.url, Records::MariaDb, Arc::clone(point)).await;
            in_transactions(role, builder, mysql(&url, 4).await, in_mysql)
        }
        (true, _) => in_transactions(role, builder, hooked(role, point).await, in_sqlite),
        (false, _) => {
            let store = role.place.store(role.guard).await;
            let pointed = store::Pointed {
                store: Arc::clone(&store),
                point: Arc::clone(point),
                defect: role.defect,
                is_lock: matches!(role.guard, Guard::Locked(_)),
            };
            let strategy = if pointed.is_lock {
                builder = locked(role, builder, pointed).await;
                Tracked::new(store)
            } else {
                Tracked::new(pointed)
            };
            let strategy = match role.fault {
                Some((_, Fault::Lost)) => strategy.answer_timeout(ANSWER_TIMEOUT),
                _ => strategy,
            };
            builder.idempotent(strategy.lease(LEASE)).handler(tracked)
        }
    }
}

/// Messages in a row exclude each other. Who finds the lock held waits for less than a lease, and is deferred then.
async fn locked(
    role: &Role,
    builder: SubscriptionBuilder,
    store: store::Pointed,
) -> SubscriptionBuilder {
    let key = match role.defect {
        Some(Defect::LocksTheMessage) => Key::message_id(),
        _ => Key::from_fn(|context| {
            let id = context.message_id().ok_or("a message without an id")?;
            Ok::<_, &str>(key_of(id.as_ref()))
        }),
    };
    let lock = Locked::by(store, key).lease(LEASE).wait(LEASE / 2);
    let lock = match role.fault {
        Some((_, Fault::Lost)) => lock.answer_timeout(ANSWER_TIMEOUT),
        _ => lock,
    };
    let (pool, instance) = (role.place.file().await, role.instance.clone());
    builder.middleware(lock).middleware(Visiting { pool, instance })
}

fn in_transactions<DB, H, Args>(
    role: &Role,
    builder: SubscriptionBuilder,
    pool: Pool<DB>,
    handler: H,
) -> Subscription
where
    DB: TransactionalDatabase,
    H: Handler<Args>,
    Args: 'static,
{
    let mut strategy = Transactional::new(pool);
    if let Some((_, Fault::Lost)) = role.fault {
        strategy = strategy.answer_timeout(ANSWER_TIMEOUT);
    }
    if let Guard::GroupCommit(_) = role.guard {
        let options = GroupCommit::up_to(4).in_flight(1).linger(Duration::from_millis(5));
        strategy = strategy.group_commit(options);
    }
    builder.idempotent(strategy).handler(handler)
}

fn is_in_process(guard: Guard) -> bool {
    guard.is_transactional() && guard.records() == Records::Sqlite
}

/// Connections to SQLite that reach a failpoint before each commit. For an answer that comes too late, the commit takes
/// longer than it is waited for.
async fn hooked(role: &Role, point: &Arc<Point>) -> SqlitePool {
    let lost = role.meets(Boundary::EndApplied, Fault::Lost);
    let boundary = if lost { Boundary::EndApplied } else { Boundary::EndSent };
    let point = Arc::clone(point);
    let pool = SqlitePoolOptions::new().max_connections(4).after_connect(move |connection, _| {
        let point = Arc::clone(&point);
        Box::pin(async move {
            let mut handle = connection.lock_handle().await?;
            handle.set_commit_hook(move || match point.at(boundary, "") {
                None => true,
                Some(Strike::Error) => false,
                Some(Strike::Lost) => {
                    std::thread::sleep(2 * ANSWER_TIMEOUT);
                    true
                }
            });
            Ok(())
        })
    });
    pool.connect_with(role.place.options()).await.unwrap()
}

/// Around the strategy: before it the message is read, and after it the transaction is over.
struct Around {
    point: Arc<Point>,
    is_in_process: bool,
}

#[async_trait]
impl Middleware for Around {
    async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
        let id = context.message_id().map(ToString::to_string).unwrap_or_default();
        if self.point.at(Boundary::Decoded, &id).is_some() {
            return Err(HandlerError::retryable("it was struck"));
        }
        let outcome = next.run(context).await;
        if self.is_in_process && matches!(outcome, Ok(Outcome::Done)) {
            self.point.at(Boundary::EndApplied, &id);
        }
        outcome
    }
}

/// What a handler has.
#[derive(Debug, Clone)]
struct Handling {
    role: Role,
    point: Arc<Point>,
}

impl Handling {
    async fn at(&self, boundary: Boundary, id: &str) -> Result<(), HandlerError> {
        match self.point.at(boundary, id) {
            None => Ok(()),
            Some(Strike::Error) => Err(HandlerError::retryable("it was struck")),
            Some(Strike::Lost) => pending().await,
        }
    }
}

/// The effect, between its two failpoints.
macro_rules! effect {
    ($meta:ident, $attempt:ident, $handling:ident, $sql:literal, $executor:expr) => {{
        let id = $meta.id.map(|id| id.to_string()).unwrap_or_default();
        $handling.at(Boundary::HandlerStarted, &id).await?;
        let insert = sqlx::query($sql).bind(&id).bind(i64::from($attempt));
        insert.bind(&$handling.role.instance).execute($executor).await?;
        $handling.at(Boundary::EffectApplied, &id).await
    }};
}

async fn tracked(
    meta: Meta,
    Attempt(attempt): Attempt,
    State(handling): State<Handling>,
    State(pool): State<SqlitePool>,
) -> Result<(), HandlerError> {
    effect!(meta, attempt, handling, "INSERT INTO effects VALUES (?, ?, ?)", &pool)
}

async fn in_sqlite(
    meta: Meta,
    Attempt(attempt): Attempt,
    State(handling): State<Handling>,
    mut tx: Tx<Sqlite>,
) -> Result<(), HandlerError> {
    effect!(meta, attempt, handling, "INSERT INTO effects VALUES (?, ?, ?)", &mut *tx)
}

async fn in_postgres(
    meta: Meta,
    Attempt(attempt): Attempt,
    State(handling): State<Handling>,
    mut tx: Tx<Postgres>,
) -> Result<(), HandlerError> {
    effect!(meta, attempt, handling, "INSERT INTO effects VALUES ($1, $2, $3)", &mut *tx)
}

async fn in_mysql(
    meta: Meta,
    Attempt(attempt): Attempt,
    State(handling): State<Handling>,
    mut tx: Tx<MySql>,
) -> Result<(), HandlerError> {
    effect!(meta, attempt, handling, "INSERT INTO effects VALUES (?, ?, ?)", &mut *tx)
}
