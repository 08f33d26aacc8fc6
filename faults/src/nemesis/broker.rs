//! Harm to the broker.

use std::time::{Duration, Instant};

use super::Struck;
use crate::soak::{QUEUE, Stage};

pub(super) fn kill(stage: &Stage) -> Struck {
    tokio::task::block_in_place(|| {
        let mut broker = stage.broker.lock().unwrap();
        broker.kill();
        broker.start_again().unwrap();
    });
    Struck::nobody("the broker")
}

pub(super) fn terminate(stage: &Stage) -> Struck {
    tokio::task::block_in_place(|| {
        let mut broker = stage.broker.lock().unwrap();
        broker.stop().unwrap();
        broker.start_again().unwrap();
    });
    Struck::nobody("the broker")
}

pub(super) async fn freeze(stage: &Stage) -> Struck {
    stage.broker.lock().unwrap().pause();
    tokio::time::sleep(Duration::from_secs(5)).await;
    stage.broker.lock().unwrap().resume();
    Struck::nobody("the broker")
}

pub(super) async fn alarm(stage: &Stage) -> Struck {
    let set = |limit: &str| {
        tokio::task::block_in_place(|| {
            let broker = stage.broker.lock().unwrap();
            broker.ctl(&["set_vm_memory_high_watermark", limit]).unwrap();
        });
    };
    set("0.000001");
    tokio::time::sleep(Duration::from_secs(3)).await;
    set("0.6");
    Struck::nobody("the broker")
}

/// Deletes the queue of the service while nothing is in it, as an operator would who knows that.
///
/// The broker counts a quorum queue's messages every five seconds, and each queue for itself: what comes back from a queue of
/// delays may be in neither count. So nothing may have been seen for longer than a count and a lease last.
pub(super) async fn delete_queue(stage: &Stage) -> Struck {
    const PATIENCE: Duration = Duration::from_secs(90);
    const QUIET: Duration = Duration::from_secs(16);
    let _nobody_publishes = stage.publishing.write().await;
    let since = Instant::now();
    let mut quiet_since = None;
    loop {
        let empty = stage.queues().is_ok_and(|left| left.is_empty());
        quiet_since = empty.then(|| quiet_since.unwrap_or_else(Instant::now));
        if quiet_since.is_some_and(|quiet| quiet.elapsed() > QUIET) {
            break;
        }
        if since.elapsed() > PATIENCE {
            return Struck::nobody("nothing: the queue did not get empty");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let deleted =
        tokio::task::block_in_place(|| stage.broker.lock().unwrap().ctl(&["delete_queue", QUEUE]));
    Struck::nobody(match deleted {
        Ok(said) => format!("{QUEUE} ({})", said.lines().last().unwrap_or_default().trim()),
        Err(error) => format!("nothing: {error}"),
    })
}
