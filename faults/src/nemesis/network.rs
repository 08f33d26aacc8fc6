//! Harm to the network between consumers and broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Struck;
use crate::proxy::{Direction, Fate, Weather};
use crate::soak::Stage;

pub(super) fn cut(stage: &Stage) -> Struck {
    stage.proxy.cut();
    Struck::nobody("all connections")
}

/// Waits for a delivery, for a while.
pub(super) async fn cut_a_frame(stage: &Stage) -> Struck {
    let is_cut = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_cut);
    stage.proxy.rule(move |direction, frame| {
        let is_one = direction == Direction::FromBroker && frame.is_delivery();
        match is_one && !seen.swap(true, Ordering::SeqCst) {
            true => Fate::CutInside,
            false => Fate::Pass,
        }
    });
    let came = tokio::time::timeout(Duration::from_secs(5), async {
        while !is_cut.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let came = came.await.is_ok();
    stage.proxy.no_rule();
    Struck::nobody(if came { "a delivery" } else { "nothing: no delivery came" })
}

pub(super) async fn drop_acks(stage: &Stage) -> Struck {
    stage.proxy.rule(|direction, frame| match direction == Direction::ToBroker && frame.is_ack() {
        true => Fate::Drop,
        false => Fate::Pass,
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    stage.proxy.no_rule();
    stage.proxy.cut();
    Struck::nobody("acknowledgements")
}

pub(super) async fn one_way(stage: &Stage) -> Struck {
    stage.proxy.hold(Direction::ToBroker, true);
    tokio::time::sleep(Duration::from_secs(8)).await;
    stage.proxy.hold(Direction::ToBroker, false);
    Struck::nobody("what consumers say")
}

pub(super) async fn latency(stage: &Stage) -> Struck {
    stage.proxy.weather(Weather { latency: Duration::from_millis(300), ..Weather::default() });
    tokio::time::sleep(Duration::from_secs(5)).await;
    stage.proxy.weather(Weather::default());
    Struck::nobody("the network")
}

pub(super) async fn black_hole(stage: &Stage) -> Struck {
    stage.proxy.hold_all(true);
    tokio::time::sleep(Duration::from_secs(12)).await;
    stage.proxy.hold_all(false);
    Struck::nobody("the network")
}
