//! A handler with an extractor, as kanin's are; JSON instead of protobuf.

use std::convert::Infallible;

use ::kanin::{App, Extract, HandlerConfig, Request, Respond};
use async_trait::async_trait;

use crate::order::{Event, Order};
use crate::{PREFETCH, QUEUE, Result, tally};

struct Json(Order);

#[async_trait]
impl<S: Send + Sync> Extract<S> for Json {
    type Error = Infallible;

    async fn extract(request: &mut Request<S>) -> std::result::Result<Self, Self::Error> {
        let event: Event =
            serde_json::from_slice(&request.delivery().data).expect("it is an order");
        Ok(Self(event.payload))
    }
}

/// Nobody waits for it.
#[derive(Debug)]
struct Nothing;

impl Respond for Nothing {
    fn respond(self) -> Vec<u8> {
        Vec::new()
    }
}

async fn handle(Json(order): Json) -> Nothing {
    std::hint::black_box(order);
    tally::one();
    Nothing
}

pub async fn consume(url: &str) -> Result<()> {
    let config = HandlerConfig::new()
        .with_prefetch(PREFETCH)
        .with_auto_delete(false)
        .with_durable(true)
        .with_arg("x-queue-type", lapin::types::AMQPValue::LongString("quorum".into()))
        .with_replies(false);
    Ok(App::new(()).handler_with_config(QUEUE, handle, config).run(url).await?)
}
