//! The other program, which counts allocations.

use tokio::process::Command;

use crate::Result;
use crate::servers::Servers;

/// Has it run a contender of a case, and tells how often that allocates for a message.
pub(crate) async fn allocations(servers: &Servers, case: &str, contender: &str) -> Result<f64> {
    let program = servers.counted()?;
    let mut command = Command::new(program);
    command.arg(case).args(["--count", contender]).args(servers.arguments());
    let output = command.kill_on_drop(true).output().await;
    let output = output.map_err(|e| format!("failed to start {}: {e}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| {
        let error = String::from_utf8_lossy(&output.stderr);
        format!("no allocations were counted of {contender}: {text}{error}").into()
    })
}
