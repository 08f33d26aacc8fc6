//! Harm to the network between consumers and broker.

use std::time::Duration;

use super::Struck;
use crate::soak::Stage;

pub(super) fn cut(stage: &Stage) -> Struck {
    stage.proxy.cut();
    Struck::nobody("the network")
}

pub(super) async fn black_hole(stage: &Stage) -> Struck {
    stage.proxy.hold_all(true);
    tokio::time::sleep(Duration::from_secs(12)).await;
    stage.proxy.hold_all(false);
    Struck::nobody("the network")
}
