//! A process of the crash-point matrix. It reads what it shall be from the variable `ROLE`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use mmate_faults::matrix::{Role, consume};

#[tokio::main(worker_threads = 2)]
async fn main() {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter("warn,mmate=debug")
        .init();
    let role: Role = serde_json::from_str(&std::env::var("ROLE").unwrap()).unwrap();
    consume(role).await;
}
