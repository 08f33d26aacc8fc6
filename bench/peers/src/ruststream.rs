//! A subscriber function, as in its quick start.

use ::ruststream::runtime::{AppInfo, HandlerResult, RustStream};
use ::ruststream::subscriber;
use ruststream_lapin::LapinBroker;

use crate::order::Event;
use crate::{PREFETCH, Result, tally};

#[subscriber("bench.peers")]
async fn handle(event: &Event) -> HandlerResult {
    std::hint::black_box(&event.payload);
    tally::one();
    HandlerResult::Ack
}

pub async fn consume(url: &str) -> Result<()> {
    let broker = LapinBroker::new(url).prefetch(PREFETCH);
    let app = RustStream::new(AppInfo::new("bench", "0.0.0"));
    Ok(app.with_broker(broker, |broker| broker.include(handle)).run().await?)
}
