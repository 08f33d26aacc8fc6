//! Harm to the broker.

use std::time::Duration;

use super::Struck;
use crate::soak::Stage;

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
