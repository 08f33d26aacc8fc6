//! The shop: what an event does to it, and through which subscriptions it hears of them.

use mmate_core::{
    Context, Envelope, FromContext, HandlerError, Json, Meta, Scope, State, Subscription,
    SubscriptionBuilder, TopicPattern,
};
use mmate_examples::database::Statements;
use mmate_idempotency::Tx;
use serde::Deserialize;
use sqlx::Pool;

use crate::database;

/// The subscriptions that overlap: `order.created.us-west` comes through all three.
pub(crate) const OVERLAPPING: [(&str, &str); 3] =
    [("orders", "order.*.*"), ("created", "*.created.*"), ("us-west", "*.*.us-west")];

/// The subscription that sees everything, in a scope of its own.
pub(crate) const AUDIT: &str = "audit";

/// Whether the overlapping subscriptions take a topic.
pub(crate) fn overlapping_take(topic: &str) -> bool {
    OVERLAPPING
        .iter()
        .any(|(_, pattern)| TopicPattern::new(*pattern).is_ok_and(|pattern| pattern.matches(topic)))
}

/// The three overlapping subscriptions, which share the service's scope.
pub(crate) fn overlapping() -> impl Iterator<Item = SubscriptionBuilder> {
    OVERLAPPING
        .into_iter()
        .map(|(name, pattern)| Subscription::per_service(name, [pattern]).scope(Scope::Service))
}

/// The subscription of the audit log.
pub(crate) fn audit() -> SubscriptionBuilder {
    Subscription::per_service(AUDIT, ["#"])
}

/// What the shop reads in an event; the rest of the payload is for others.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ShopEvent {
    pub(crate) order_id: Option<String>,
    pub(crate) sku: Option<String>,
    #[serde(default)]
    pub(crate) quantity_change: i64,
    #[serde(default)]
    pub(crate) delivered: i64,
    #[serde(default)]
    pub(crate) version: i64,
}

/// Which message came through which subscription of which instance.
pub(crate) struct Through {
    pub(crate) message_id: String,
    pub(crate) topic: String,
    pub(crate) subscription: String,
    pub(crate) instance: String,
}

impl FromContext for Through {
    async fn from_context(context: &Context) -> Result<Self, HandlerError> {
        Ok(Self {
            message_id: context.message_id().map(ToString::to_string).unwrap_or_default(),
            topic: context.routing_key().to_owned(),
            subscription: context.subscription().to_owned(),
            instance: context.instance().to_owned(),
        })
    }
}

/// Applies an event within the transaction that also holds the record of it.
pub(crate) async fn apply_in_transaction<DB: Statements>(
    Json(event): Json<ShopEvent>,
    meta: Meta,
    through: Through,
    mut tx: Tx<DB>,
) -> Result<(), HandlerError> {
    apply::<DB>(&mut tx, &event, &meta, &through).await
}

/// Applies an event in a transaction of its own.
pub(crate) async fn apply_alone<DB: Statements>(
    Json(event): Json<ShopEvent>,
    meta: Meta,
    through: Through,
    State(pool): State<Pool<DB>>,
) -> Result<(), HandlerError> {
    let mut tx = database::begin_writing(&pool).await?;
    apply::<DB>(&mut tx, &event, &meta, &through).await?;
    tx.commit().await?;
    Ok(())
}

/// Notes an event in the audit log, within the transaction that also holds the record of it.
pub(crate) async fn note_in_transaction<DB: Statements>(
    envelope: Envelope,
    through: Through,
    mut tx: Tx<DB>,
) -> Result<(), HandlerError> {
    Ok(database::note::<DB>(&mut tx, &envelope.message_type, &through).await?)
}

/// Notes an event in the audit log.
pub(crate) async fn note_alone<DB: Statements>(
    envelope: Envelope,
    through: Through,
    State(pool): State<Pool<DB>>,
) -> Result<(), HandlerError> {
    let mut connection = pool.acquire().await?;
    Ok(database::note::<DB>(&mut connection, &envelope.message_type, &through).await?)
}

/// What an event does: a row in the effect table that shows it, and the shop's own tables.
///
/// Events may come out of order, so changes of a quantity are added up, and the status is that of
/// the highest version.
async fn apply<DB: Statements>(
    connection: &mut DB::Connection,
    event: &ShopEvent,
    meta: &Meta,
    through: &Through,
) -> Result<(), HandlerError> {
    database::add_effect::<DB>(connection, through).await?;
    if let Some(order_id) = &event.order_id {
        let status = meta.message_type.as_deref().unwrap_or("unknown");
        database::change_order::<DB>(connection, order_id, status, event).await?;
    }
    if let Some(sku) = &event.sku {
        let change = event.delivered - event.quantity_change;
        database::change_stock::<DB>(connection, sku, change).await?;
    }
    Ok(())
}
