use std::{
    thread,
    time::{Duration, Instant},
};

use super::{Redis, Role};
use crate::error::StartError;

/// A Redis master and its replica, and Sentinels that make the replica the master if the master is gone for a second.
///
/// ```no_run
/// use mmate_test_support::RedisSentinel;
///
/// let mut redis = RedisSentinel::start(1)?;
/// redis.master().kill();
/// redis.wait_for_failover();
/// # Ok::<(), mmate_test_support::StartError>(())
/// ```
#[derive(Debug)]
pub struct RedisSentinel {
    master: Redis,
    replica: Redis,
    sentinels: Vec<Redis>,
}

impl RedisSentinel {
    /// The name by which the Sentinels know the master.
    pub const MASTER_NAME: &'static str = "mmate";

    /// Starts both servers and so many Sentinels, and waits until the replica has all that the master has and the
    /// Sentinels know everybody.
    ///
    /// # Errors
    /// If Redis is not installed, or one of them does not start; the error holds the end of its log.
    pub fn start(sentinels: usize) -> Result<Self, StartError> {
        let name = Self::MASTER_NAME;
        let master = Redis::start()?;
        let follow = format!("replicaof 127.0.0.1 {}\nrepl-diskless-sync-delay 0", master.port());
        let replica = Redis::options().config(&follow).start()?;
        replica.server.wait_until(|| {
            let info = replica.ask("INFO replication");
            info.is_ok_and(|info| info.contains("master_link_status:up"))
        })?;
        let mut options = Redis::options().config(&format!(
            "sentinel monitor {name} 127.0.0.1 {} {}\n\
             sentinel down-after-milliseconds {name} 1000\n\
             sentinel failover-timeout {name} 5000",
            master.port(),
            sentinels / 2 + 1
        ));
        options.role = Role::Sentinel;
        let sentinels: Vec<_> =
            (0..sentinels).map(|_| options.start()).collect::<Result<_, _>>()?;
        let others = format!("num-other-sentinels\n{}\n", sentinels.len() - 1);
        for sentinel in &sentinels {
            sentinel.server.wait_until(|| {
                let known = sentinel.ask(&format!("SENTINEL MASTER {name}"));
                known
                    .is_ok_and(|known| known.contains("num-slaves\n1\n") && known.contains(&others))
            })?;
        }
        Ok(Self { master, replica, sentinels })
    }

    /// The server that was the master at first.
    #[must_use]
    pub fn master(&mut self) -> &mut Redis {
        &mut self.master
    }

    /// The server that was the replica at first.
    #[must_use]
    pub fn replica(&mut self) -> &mut Redis {
        &mut self.replica
    }

    /// The addresses of the Sentinels, each as `redis://127.0.0.1:PORT/`.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.sentinels.iter().map(Redis::url).collect()
    }

    /// Makes the replica the master and the master its replica, although nothing is wrong, and waits until it is so.
    ///
    /// # Panics
    /// If that takes longer than a minute.
    pub fn fail_over(&self) {
        let command = format!("SENTINEL FAILOVER {}", Self::MASTER_NAME);
        // Right after the start a Sentinel may not trust the replica yet.
        until("a Sentinel begins a failover", || self.sentinels[0].ask(&command).is_ok());
        self.wait_for_failover();
        until("the old master follows", || {
            self.master.ask("ROLE").is_ok_and(|role| role.starts_with("slave"))
        });
    }

    /// Waits until what was the replica is the master, and all Sentinels say so.
    ///
    /// # Panics
    /// If that takes longer than a minute.
    pub fn wait_for_failover(&self) {
        let question = format!("SENTINEL GET-MASTER-ADDR-BY-NAME {}", Self::MASTER_NAME);
        let expected = format!("127.0.0.1\n{}", self.replica.port());
        let is_named = |one: &Redis| one.ask(&question).is_ok_and(|named| named == expected);
        until("the replica is the master", || {
            let role = self.replica.ask("ROLE");
            role.is_ok_and(|role| role.starts_with("master")) && self.sentinels.iter().all(is_named)
        });
    }
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "not within a minute: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
