//! The service as a process of its own, to be stopped, frozen and killed.
//!
//! It reads what it shall be from the variable `SHOP`, writes a line when it runs, and a report when it has ended. It ends
//! at SIGTERM, and when its standard input is closed: with whoever started it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use mmate_core::shutdown_signal;
use mmate_faults::{Report, Shop};
use tokio::io::AsyncReadExt;

#[tokio::main(worker_threads = 2)]
async fn main() {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter("warn,mmate=info")
        .init();
    let shop: Shop = serde_json::from_str(&std::env::var("SHOP").unwrap()).unwrap();
    let signal = shutdown_signal();
    let abandoned = async { tokio::io::stdin().read(&mut [0]).await };
    let mut running = shop.start().await;
    println!("ready");
    tokio::select! {
        () = signal => {}
        () = running.failed() => {}
        _ = abandoned => std::process::exit(3),
    }
    let stats = running.stats().clone();
    running.stop().await.unwrap();
    println!("{}", serde_json::to_string(&Report::from(stats.total())).unwrap());
}
