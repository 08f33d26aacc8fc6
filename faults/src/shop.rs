//! The service that everything is done to.

use std::path::PathBuf;
use std::time::Duration;

use mmate_amqp::Amqp;
use mmate_core::{
    Context, Counts, FromContext, HandlerError, Json, Outgoing, Publisher, RetryPolicy, Running,
    Service, State, Subscription,
};
use mmate_idempotency::{Transactional, Tx};
use serde::{Deserialize, Serialize};
use sqlx::Sqlite;

use crate::effects::{Effect, Effects};

/// The service, and where and how it runs. What a child process gets told is this, as JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Shop {
    /// The service's name, which its queues and topics begin with.
    pub service: String,
    /// This instance's name.
    pub instance: String,
    /// The broker.
    pub url: String,
    /// The database that all instances share.
    pub database: PathBuf,
    /// As of the subscriptions.
    pub prefetch: u16,
    /// As of the subscriptions.
    pub concurrency: usize,
    /// How long the handler works for each message.
    pub handling: Duration,
    /// As of the transport.
    pub heartbeat: Duration,
    /// As of the transport.
    pub answer_timeout: Duration,
    /// As of the transport.
    pub delivery_limit: u32,
    /// As of the transport.
    pub settle_timeout: Duration,
    /// As of the transport.
    pub max_body_bytes: u64,
    /// As of the strategy; nothing for no strategy at all.
    pub is_idempotent: bool,
}

/// The subscription that orders come through.
pub(crate) const ORDERS: &str = "orders";
/// Another one on the same connection.
pub(crate) const NEIGHBOURS: &str = "neighbours";

/// The payload of a message.
#[derive(Debug, Clone, Serialize, Deserialize, Default)]
#[non_exhaustive]
pub struct Order {
    /// Its number, in the order of publishing.
    pub seq: i64,
    /// Whether no handling can help it.
    pub is_poison: bool,
    /// How many milliseconds longer than others its handling takes.
    pub extra_work: u64,
    /// Where an answer is to be published, if anywhere.
    pub answer_to: Option<String>,
}

impl Order {
    /// An order of this number.
    #[must_use]
    pub fn number(seq: i64) -> Self {
        Self { seq, ..Self::default() }
    }

    /// One that no handling can help.
    #[must_use]
    pub fn poison() -> Self {
        Self { is_poison: true, ..Self::default() }
    }

    /// One that takes longer than others.
    #[must_use]
    pub fn laborious(extra_work: Duration) -> Self {
        let extra_work = extra_work.as_millis().try_into().unwrap();
        Self { extra_work, ..Self::default() }
    }

    /// One that is answered under this topic.
    #[must_use]
    pub fn answered_to(topic: String) -> Self {
        Self { answer_to: Some(topic), ..Self::default() }
    }
}

/// What an instance says of itself when it ends.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// As of its counts, as are the others.
    pub fetched: u64,
    /// Handled with an effect.
    pub succeeded: u64,
    /// Redelivered after it had its effect.
    pub redelivered: u64,
    /// All duplicates.
    pub duplicates: u64,
    /// Settlements that did not reach the broker.
    pub settlements_lost: u64,
    /// Redeliveries of what it was still at work on.
    pub adopted: u64,
    /// Whether its counts added up.
    pub is_conserved: bool,
}

impl From<Counts> for Report {
    fn from(counts: Counts) -> Self {
        Self {
            fetched: counts.fetched,
            succeeded: counts.succeeded,
            redelivered: counts.duplicates.redelivered,
            duplicates: counts.duplicates.total(),
            settlements_lost: counts.settlements_lost,
            adopted: counts.adopted,
            is_conserved: counts.is_conserved(),
        }
    }
}

impl Shop {
    /// With the defaults of the product, but for a handler that takes little time.
    #[must_use]
    pub fn new(service: String, url: String, database: PathBuf) -> Self {
        Self {
            service,
            instance: "one".to_owned(),
            url,
            database,
            prefetch: 50,
            concurrency: 8,
            handling: Duration::from_millis(1),
            heartbeat: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(10),
            delivery_limit: 20,
            settle_timeout: Duration::from_secs(30),
            max_body_bytes: 16 << 20,
            is_idempotent: true,
        }
    }

    /// The topic of orders.
    #[must_use]
    pub fn topic(&self) -> String {
        format!("{}.order.eu", self.service)
    }

    /// The topic of the other subscription.
    #[must_use]
    pub fn other_topic(&self) -> String {
        format!("{}.neighbour.eu", self.service)
    }

    /// The queue of orders.
    #[must_use]
    pub fn queue(&self) -> String {
        format!("{}.{ORDERS}", self.service)
    }

    /// The queue of the other subscription.
    #[must_use]
    pub fn other_queue(&self) -> String {
        format!("{}.{NEIGHBOURS}", self.service)
    }

    /// Starts it.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start(&self) -> Running {
        let effects = Effects::open(&self.database).await;
        let subscribe = |name: &str, topic: String| {
            let subscription = Subscription::per_service(name, [topic])
                .prefetch(self.prefetch.try_into().unwrap())
                .concurrency(self.concurrency)
                .retry(RetryPolicy::default());
            match self.is_idempotent {
                true => subscription.idempotent(Transactional::new(effects.pool())).handler(apply),
                false => subscription.handler(apply_unprotected),
            }
        };
        Service::new(self.service.as_str())
            .instance(self.instance.as_str())
            .state(self.clone())
            .state(effects.clone())
            .subscribe(subscribe(ORDERS, self.topic()))
            .subscribe(subscribe(NEIGHBOURS, self.other_topic()))
            .start(self.broker())
            .await
            .unwrap()
    }

    fn broker(&self) -> Amqp {
        Amqp::new(&self.url)
            .heartbeat(self.heartbeat)
            .answer_timeout(self.answer_timeout)
            .delivery_limit(self.delivery_limit)
            .settle_timeout(self.settle_timeout)
            .max_body_bytes(self.max_body_bytes)
    }
}

struct Through {
    business_id: String,
    subscription: String,
    attempt: u32,
}

impl FromContext for Through {
    async fn from_context(context: &Context) -> Result<Self, HandlerError> {
        Ok(Self {
            business_id: context.message_id().map(ToString::to_string).unwrap_or_default(),
            subscription: context.subscription().to_owned(),
            attempt: context.attempt(),
        })
    }
}

async fn apply(
    Json(order): Json<Order>,
    through: Through,
    State(shop): State<Shop>,
    publisher: Publisher,
    mut tx: Tx<Sqlite>,
) -> Result<(), HandlerError> {
    write(&order, &through, &shop, &mut tx).await?;
    work(&order, &shop, &publisher).await
}

async fn apply_unprotected(
    Json(order): Json<Order>,
    through: Through,
    State(shop): State<Shop>,
    State(effects): State<Effects>,
    publisher: Publisher,
) -> Result<(), HandlerError> {
    write(&order, &through, &shop, &mut *effects.pool().acquire().await?).await?;
    work(&order, &shop, &publisher).await
}

async fn write(
    order: &Order,
    through: &Through,
    shop: &Shop,
    connection: &mut sqlx::SqliteConnection,
) -> Result<(), HandlerError> {
    if order.is_poison {
        return Err(HandlerError::permanent("nothing can help it"));
    }
    let effect = Effect {
        business_id: &through.business_id,
        subscription: &through.subscription,
        attempt: through.attempt,
        instance: &shop.instance,
        seq: order.seq,
    };
    Ok(effect.write(connection).await?)
}

async fn work(order: &Order, shop: &Shop, publisher: &Publisher) -> Result<(), HandlerError> {
    tokio::time::sleep(shop.handling + Duration::from_millis(order.extra_work)).await;
    if let Some(topic) = &order.answer_to {
        publisher
            .publish(Outgoing::event(topic, "OrderAnswered", &Order::number(order.seq)))
            .await?;
    }
    Ok(())
}
