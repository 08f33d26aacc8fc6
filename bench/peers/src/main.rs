//! Consumes `bench.peers` with another crate, as its own documentation recommends: `mmate-bench-peers PEER URL MESSAGES`.
//!
//! Prints what that took, in seconds and in seconds of CPU, and ends a second later, when all acknowledgements are
//! written. `scripts/bench peers` runs it beside mmate.

mod amqprs;
mod apalis;
mod kanin;
mod order;
mod ruststream;
mod tally;

use std::time::Duration;

/// The queue, which is there.
const QUEUE: &str = "bench.peers";
/// How many deliveries each may hold.
const PREFETCH: u16 = 1000;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().ok_or(format!("{what} is missing"));
    let (peer, url) = (next("the peer")?, next("the URL")?);
    tally::expect(next("the number of messages")?.parse()?);
    let consuming = async {
        match peer.as_str() {
            "amqprs" => amqprs::consume(&url).await,
            "apalis" => apalis::consume(&url).await,
            "kanin" => kanin::consume(&url).await,
            "ruststream" => ruststream::consume(&url).await,
            _ => Err(format!("there is no peer {peer}").into()),
        }
    };
    let complete = async {
        let took = tally::complete().await;
        println!("{} {}", took.wall.as_secs_f64(), took.cpu.as_secs_f64());
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    tokio::select! {
        ended = consuming => {
            ended?;
            Err("the consumer ended".into())
        }
        () = complete => Ok(()),
    }
}
