//! Everything in one process: a provider, the service, and a shop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mmate_amqp::Amqp;
use mmate_core::{InProcess, Transport, shutdown_signal};
use mmate_examples::program::{ANY_PORT, Failure, listen};
use mmate_examples::stores;
use tempfile::TempDir;

use crate::bank::Bank;
use crate::books::Database;
use crate::check::Report;
use crate::options::DemoOptions;
use crate::provider::Provider;
use crate::{service, shop};

/// How long nothing may happen before what is missing counts as lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether each order was charged once.
pub(crate) async fn run(options: DemoOptions) -> Result<bool, Failure> {
    tokio::select! {
        is_clean = show(options) => is_clean,
        () = shutdown_signal() => Err("interrupted".into()),
    }
}

async fn show(options: DemoOptions) -> Result<bool, Failure> {
    let folder = TempDir::new()?;
    let file = || format!("sqlite:{}", folder.path().join("payments.db").display());
    let database = Database::open(&options.database.clone().unwrap_or_else(file)).await?;
    let http = listen(ANY_PORT).await?;
    let bank = Bank::at(&format!("http://{}", http.local_addr()?), options.work.patience())?;
    let provider = Provider::new(options.manners);
    let pages = tokio::spawn(axum::serve(http, provider.pages()).into_future());
    let broker: Arc<dyn Transport> = match &options.broker {
        Some(url) => Arc::new(Amqp::new(url)),
        None => Arc::new(InProcess::new()),
    };
    let locks = stores::open(&options.locks).await?;
    let running = service::start(&database, bank.clone(), locks, &options.work, broker).await?;

    let published = shop::place(running.publisher(), options.orders).await?;
    println!("published {published} messages about {} orders\n", options.orders);
    let (mut since, mut last) = (Instant::now(), 0);
    let report = loop {
        let report = Report::of(&bank.charges().await?, &database.summary().await?, options.orders);
        let handled = running.stats().total().succeeded;
        if handled != last {
            (since, last) = (Instant::now(), handled);
        }
        // A while longer than the last retry of a message that somebody else has made needless.
        let quiet = if report.is_clean() { Duration::from_secs(1) } else { PATIENCE };
        if since.elapsed() > quiet {
            break report;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    print!("{report}");
    running.stop().await?;
    provider.finish().await;
    pages.abort();
    Ok(report.is_clean())
}
