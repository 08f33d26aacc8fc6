//! What strangers write does not get into the log as they wish.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mmate_core::{
    HandlerError, InProcess, Json, Outgoing, Permanent, RetryPolicy, Service, Subscription,
};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A line break, a colour and a line that looks like ours.
const FORGED: &str = "x\n\u{1b}[31m2026-01-01T00:00:00Z ERROR forged: all money is gone";

/// Fails with what the message says, as handlers do.
async fn repeat(Json(text): Json<String>) -> Result<(), HandlerError> {
    match text.len() % 2 {
        0 => Err(text).permanent(),
        _ => Err(HandlerError::retryable(text)),
    }
}

#[test]
fn what_strangers_write_forges_no_line_of_the_log_and_fills_no_disk() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    tracing::subscriber::with_default(subscriber, || runtime.block_on(be_written_to()));

    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = text.lines().filter(|line| line.contains("forged")).collect();
    assert!(lines.len() >= 5, "the errors are told: {text}");
    for line in lines {
        assert!(!line.contains('\u{1b}'), "{line}");
        assert!(!line.starts_with("2026-01-01"), "{line}");
        assert!(line.len() < 8 * 1_024, "{} bytes: {:.200}…", line.len(), line);
    }
}

async fn be_written_to() {
    let broker = InProcess::new();
    let twice = RetryPolicy::fixed(Duration::from_secs(1)).max_attempts(2);
    let running = Service::new("shop")
        .subscribe(Subscription::per_service("q", ["#"]).retry(twice).handler(repeat))
        .start(broker.clone())
        .await
        .unwrap();
    for text in [FORGED.to_owned(), format!("{FORGED}."), FORGED.repeat(10_000)] {
        let event = Outgoing::event("order.created.eu", "OrderCreated", &text)
            .header("forged", FORGED)
            .id_text(format!("id of {}", text.len()));
        running.publisher().publish(event).await.unwrap();
    }
    // A type is a stranger's text too.
    let odd = Outgoing::event("order.created.eu", FORGED, &1_u64);
    running.publisher().publish(odd).await.unwrap();
    broker.idle().await;
    running.stop().await.unwrap();
}
