//! The service's side of the provider.

use std::time::Duration;

use mmate_core::HandlerError;
use mmate_examples::program::Failure;
use reqwest::{Client, StatusCode};

use crate::order::{Charge, Order};

#[derive(Debug, Clone)]
pub(crate) struct Bank {
    http: Client,
    charges: String,
}

impl Bank {
    pub(crate) fn at(url: &str, patience: Duration) -> Result<Self, Failure> {
        let http = Client::builder().timeout(patience).build()?;
        Ok(Self { http, charges: format!("{}/charges", url.trim_end_matches('/')) })
    }

    /// Charges what the order costs. However often this is called for an order, and whatever became of the calls before,
    /// there is one charge: the key is that of the order.
    pub(crate) async fn charge(&self, order: &Order) -> Result<Charge, HandlerError> {
        let request = self.http.post(&self.charges).header("Idempotency-Key", &order.order_id);
        let response = request.json(order).send().await.map_err(HandlerError::retryable)?;
        match response.status() {
            StatusCode::CREATED => response.json().await.map_err(HandlerError::retryable),
            // It works on the call that was given up, or is out of order.
            status if status == StatusCode::CONFLICT || status.is_server_error() => {
                Err(HandlerError::retryable(format!("the provider says {status}")))
            }
            status => Err(HandlerError::permanent(format!("the provider refuses: {status}"))),
        }
    }

    pub(crate) async fn charges(&self) -> Result<Vec<Charge>, Failure> {
        let response = self.http.get(&self.charges).send().await?.error_for_status()?;
        Ok(response.json().await?)
    }
}
