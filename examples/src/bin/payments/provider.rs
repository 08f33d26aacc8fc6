//! The payment provider: it charges once per Idempotency-Key, and is otherwise as providers are.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use mmate_examples::idempotency_key::once;
use mmate_idempotency::{Idempotent, MemoryStore};
use tokio::time::sleep;

use crate::options::Manners;
use crate::order::{Charge, Order};

/// How much too late an answer is: longer than anybody waits for it.
const LATE: Duration = Duration::from_secs(3);

#[derive(Clone)]
pub(crate) struct Provider {
    manners: Manners,
    /// Which keys it has seen, and what it answered.
    seen: Idempotent,
    charges: Arc<Mutex<Vec<Charge>>>,
}

impl Provider {
    pub(crate) fn new(manners: Manners) -> Self {
        let seen = Idempotent::new(MemoryStore::new());
        Self { manners, seen, charges: Arc::default() }
    }

    pub(crate) fn pages(&self) -> Router {
        let by_key = from_fn_with_state(self.seen.clone(), once);
        let charges = post(charge).layer(by_key).get(list);
        Router::new().route("/charges", charges).with_state(self.clone())
    }

    /// Lets what clients have given up on come to its end.
    pub(crate) async fn finish(&self) {
        self.seen.finish(Duration::from_secs(10)).await;
    }

    fn charges(&self) -> MutexGuard<'_, Vec<Charge>> {
        self.charges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Charges, whenever it is called: that it is called once per key is not its business.
async fn charge(State(provider): State<Provider>, Json(order): Json<Order>) -> Response {
    let Manners { fails, late, .. } = provider.manners;
    sleep(provider.manners.takes().mul_f64(fastrand::f64())).await;
    if fastrand::f64() < fails {
        return (StatusCode::SERVICE_UNAVAILABLE, "something went wrong").into_response();
    }
    let charge = {
        let mut charges = provider.charges();
        let Order { order_id, cents } = order;
        let charge = Charge { charge_id: format!("ch-{}", charges.len() + 1), order_id, cents };
        charges.push(charge.clone());
        charge
    };
    if fastrand::f64() < late {
        sleep(LATE).await;
    }
    (StatusCode::CREATED, Json(charge)).into_response()
}

async fn list(State(provider): State<Provider>) -> Json<Vec<Charge>> {
    Json(provider.charges().clone())
}
