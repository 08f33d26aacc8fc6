//! Harm to consumers.

use std::time::Duration;

use rustix::process::Signal;

use super::Struck;
use crate::soak::Stage;

const FROZEN: Duration = Duration::from_secs(15);

pub(super) fn kill(stage: &Stage) -> Struck {
    signal(stage, Signal::KILL)
}

pub(super) async fn kill_active(stage: &Stage) -> Struck {
    const LAST: &str = "SELECT instance FROM effects ORDER BY n DESC LIMIT 1";
    let last: Result<Option<String>, _> =
        async { sqlx::query_scalar(LAST).fetch_optional(&mut stage.database().await?).await }.await;
    let instance = last.ok().flatten();
    match instance.filter(|instance| stage.fleet.kill_by_name(instance)) {
        Some(instance) => Struck { whom: instance.clone(), harmed: vec![instance] },
        None => Struck::nobody("nobody: who was active has just ended"),
    }
}

pub(super) fn terminate(stage: &Stage) -> Struck {
    signal(stage, Signal::TERM)
}

/// Another fault may come while it is frozen.
pub(super) fn freeze(stage: &Stage) -> Struck {
    let victim = stage.fleet.any();
    let Some(instance) = stage.fleet.signal(victim, Signal::STOP) else {
        return Struck::nobody("nobody: it had just ended");
    };
    let fleet = stage.fleet.clone();
    tokio::spawn(async move {
        tokio::time::sleep(FROZEN).await;
        fleet.signal(victim, Signal::CONT);
    });
    Struck { whom: instance.clone(), harmed: vec![instance] }
}

pub(super) async fn shift_clock(stage: &Stage) -> Struck {
    const TIME: Duration = Duration::from_secs(5);
    let victim = stage.fleet.any();
    let mut seen = 0;
    for hours in [1, -1] {
        if stage.fleet.set_clock(victim, hours).await {
            seen += 1;
            tokio::time::sleep(TIME).await;
        }
    }
    stage.fleet.set_clock(victim, 0).await;
    Struck::nobody(match seen {
        0 => "nobody: it had just ended".to_owned(),
        _ => stage.fleet.instance(victim),
    })
}

fn signal(stage: &Stage, signal: Signal) -> Struck {
    let sent = stage.fleet.signal(stage.fleet.any_but_the_first(), signal);
    sent.map_or_else(
        || Struck::nobody("nobody: it had just ended"),
        |instance| Struck { whom: instance.clone(), harmed: vec![instance] },
    )
}
