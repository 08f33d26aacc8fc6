//! The service of a soak, as a process of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mmate_amqp::Amqp;
use mmate_core::checker::{Event, Journal, What};
use mmate_core::{
    Context, HandlerError, Json, Middleware, Next, OrderKey, Outcome, Running, Service, State,
    Subscription, SubscriptionBuilder, shutdown_signal,
};
use mmate_idempotency::{GroupCommit, RedisStore, Tracked, Transactional, Tx};
use serde::{Deserialize, Serialize};
use sqlx::Postgres;
use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::io::AsyncReadExt;
use tokio_util::task::AbortOnDropHandle;

use super::clock::Clock;
use super::counters::Counted;
use super::options::Name;

/// What a consumer shall be. It gets told by the variable `SOAK_ROLE`, as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Role {
    /// Which soak.
    pub name: Name,
    /// This instance's name.
    pub instance: String,
    /// The broker.
    pub amqp: String,
    /// The PostgreSQL of the records and effects, where the soak has one.
    pub postgres: Option<String>,
    /// The Redis of the records, where the soak has one.
    pub redis: Option<String>,
    /// Where it writes down what it does.
    pub journal: PathBuf,
    /// Its own clock may be shifted; this is true.
    pub(super) clock: Clock,
}

/// The payload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Order {
    /// Which key's.
    pub(super) key: String,
    /// Which of its key, in the order of publishing.
    pub(super) seq: u64,
    /// Whether no handling helps it.
    pub(super) is_poison: bool,
}

pub(super) const SERVICE: &str = "soak";
pub(crate) const QUEUE: &str = "soak.orders";
/// As of records in Redis: shorter than a freeze.
const LEASE: Duration = Duration::from_secs(10);

/// `effects` has no unique constraint on purpose: a second effect must show.
pub(super) const TABLE: &str = "
CREATE TABLE effects (
    n bigserial PRIMARY KEY, id text NOT NULL, key text NOT NULL, seq bigint NOT NULL,
    instance text NOT NULL, at timestamptz NOT NULL DEFAULT clock_timestamp()
)";

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Consumes until it is told to end, or until whoever started it has ended.
///
/// # Errors
/// It cannot start, or fails.
pub async fn consume(role: Role) -> Result<std::convert::Infallible, Failure> {
    let abandoned = async { tokio::io::stdin().read(&mut [0]).await };
    let mut running = tokio::select! {
        running = start(&role) => running?,
        _ = abandoned => std::process::exit(3),
    };
    println!("ready");
    let abandoned = async { tokio::io::stdin().read(&mut [0]).await };
    let telling = AbortOnDropHandle::new(tokio::spawn(tell_the_time(role.clone())));
    tokio::select! {
        () = shutdown_signal() => {}
        () = running.failed() => {}
        _ = abandoned => std::process::exit(3),
    }
    drop(telling);
    let stats = running.stats().clone();
    running.stop().await?;
    if let Some(journals) = role.journal.parent() {
        Counted::from(stats.total()).write(journals, &role.instance)?;
    }
    // The reading of standard input cannot be stopped, and the runtime would wait for it.
    std::process::exit(0)
}

/// Says whenever its clock is another hour ahead.
async fn tell_the_time(role: Role) {
    let mut last = 0;
    loop {
        let hours = role.clock.hours_ahead();
        if hours != last {
            last = hours;
            println!("{hours}");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn start(role: &Role) -> Result<Running, Failure> {
    let journal = Arc::new(Journal::append(&role.journal)?);
    let subscription = Subscription::per_service("orders", ["soak.order.*"])
        .prefetch(64.try_into()?)
        .middleware(Noting(Writer { journal: Arc::clone(&journal), role: role.clone() }));
    let subscription = match role.name {
        Name::Tx | Name::Kill => with_postgres(role, subscription.concurrency(64)).await?,
        Name::Order => {
            let subscription = subscription.concurrency(16).ordered_by(OrderKey::topic());
            with_postgres(role, subscription.single_active_consumer()).await?
        }
        Name::Redis => {
            let store = RedisStore::connect(role.redis.as_deref().unwrap_or_default()).await?;
            subscription
                .concurrency(32)
                .idempotent(Tracked::new(store).lease(LEASE))
                .handler(write_down)
        }
    };
    let running = Service::new(SERVICE)
        .instance(role.instance.as_str())
        .state(Writer { journal, role: role.clone() })
        .subscribe(subscription)
        .start(Amqp::new(&role.amqp));
    Ok(running.await?)
}

async fn with_postgres(
    role: &Role,
    subscription: SubscriptionBuilder,
) -> Result<Subscription, Failure> {
    let url = role.postgres.as_deref().unwrap_or_default();
    let pool: PgPool = PgPoolOptions::new().max_connections(8).connect(url).await?;
    let strategy = match role.name {
        Name::Tx => Transactional::new(pool).group_commit(GroupCommit::up_to(64)),
        _ => Transactional::new(pool),
    };
    Ok(subscription.idempotent(strategy).handler(apply))
}

/// The effect in the transaction of the record.
async fn apply(
    Json(order): Json<Order>,
    State(writer): State<Writer>,
    Id(id): Id,
    mut tx: Tx<Postgres>,
) -> Result<(), HandlerError> {
    refuse_poison(&order)?;
    sqlx::query("INSERT INTO effects (id, key, seq, instance) VALUES ($1, $2, $3, $4)")
        .bind(id)
        .bind(&order.key)
        .bind(i64::try_from(order.seq).map_err(HandlerError::permanent)?)
        .bind(&writer.role.instance)
        .execute(&mut *tx)
        .await?;
    Ok(())
}

/// The effect where no transaction of the record reaches: a line in a file.
async fn write_down(
    Json(order): Json<Order>,
    State(writer): State<Writer>,
    Id(id): Id,
) -> Result<(), HandlerError> {
    refuse_poison(&order)?;
    tokio::time::sleep(Duration::from_millis(1)).await;
    writer.note(What::Effect, &id)
}

fn refuse_poison(order: &Order) -> Result<(), HandlerError> {
    match order.is_poison {
        true => Err(HandlerError::permanent("nothing can help it")),
        false => Ok(()),
    }
}

#[derive(Clone)]
struct Writer {
    journal: Arc<Journal>,
    role: Role,
}

impl Writer {
    fn note(&self, what: What, id: &str) -> Result<(), HandlerError> {
        let event = Event::now(what, id).at(self.role.clock.micros()).by(&*self.role.instance);
        self.journal.note(&event).map_err(HandlerError::retryable)
    }
}

/// Outside of the strategy: what it sees as done is in the store for good.
struct Noting(Writer);

#[async_trait]
impl Middleware for Noting {
    async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
        let id = context.message_id().map(ToString::to_string).unwrap_or_default();
        self.0.note(What::Began, &id)?;
        let outcome = next.run(context).await?;
        let what = match outcome {
            Outcome::Done => What::Done,
            Outcome::Duplicate(_) => What::Suppressed,
            _ => return Ok(outcome),
        };
        self.0.note(what, &id)?;
        Ok(outcome)
    }
}

/// The message's id.
struct Id(String);

impl mmate_core::FromContext for Id {
    async fn from_context(context: &Context) -> Result<Self, HandlerError> {
        Ok(Self(context.message_id().map(ToString::to_string).unwrap_or_default()))
    }
}
