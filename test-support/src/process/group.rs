use std::{
    io::{self, Write},
    process::{Child, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid,
};

use super::{Launch, Minder, tree};

/// A running program with its children: a process group of its own, under a minder's eyes.
///
/// The leader is waited for last. Until then its process id is nobody else's, so that no signal reaches a stranger.
#[derive(Debug)]
pub(crate) struct Group {
    leader: Child,
    abandon: Signal,
}

impl Group {
    /// Starts the program so that at no moment it runs without being minded.
    pub(crate) fn start(launch: &Launch, minder: &mut Minder) -> io::Result<Self> {
        let mut leader = launch.gated()?.spawn()?;
        let gate = leader.stdin.take();
        let group = Self { leader, abandon: launch.abandon() };
        let opened = minder.mind(group.id(), group.abandon).and_then(|()| match gate {
            Some(mut gate) => gate.write_all(b"go\n"),
            None => Ok(()),
        });
        match opened {
            Ok(()) => Ok(group),
            Err(error) => {
                group.kill(minder)?;
                Err(error)
            }
        }
    }

    /// Sends the signal to the leader and those who have stayed in its group.
    pub(crate) fn signal(&self, signal: Signal) {
        // An answer other than Ok means that nobody is left to be told.
        let _ = kill_process_group(self.id(), signal);
    }

    /// Sends the signal, which must not be one that ends the leader, to those below it too that have left its group.
    pub(crate) fn signal_all(&self, signal: Signal) {
        self.signal(signal);
        signal_each(&tree::below(self.id()), signal);
    }

    /// Whether the leader has ended.
    pub(crate) fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::Pid(self.id()), options), Ok(None))
    }

    /// Kills the leader and everything below it, waits until all are gone, and returns how the leader ended.
    pub(crate) fn kill(mut self, minder: &mut Minder) -> io::Result<ExitStatus> {
        // They are not below it any more when it is dead.
        let below = tree::below(self.id());
        self.signal(Signal::KILL);
        signal_each(&below, Signal::KILL);
        let status = self.leader.wait();
        tree::wait_until_gone(&below);
        minder.forget();
        status
    }

    /// Sends the signal, and kills what is left after the limit. Returns whether the leader ended by itself.
    pub(crate) fn end(
        self,
        signal: Signal,
        limit: Duration,
        minder: &mut Minder,
    ) -> io::Result<bool> {
        let below = tree::below(self.id());
        self.signal(signal);
        // A paused program does not see it otherwise.
        self.signal_all(Signal::CONT);
        let begin = Instant::now();
        while !self.has_ended() && begin.elapsed() < limit {
            thread::sleep(Duration::from_millis(10));
        }
        let ended = self.has_ended();
        self.kill(minder)?;
        // They may have outlived their parent for a moment.
        tree::wait_until_gone(&below);
        Ok(ended)
    }

    /// Ends it as its minder would: its data is of no use any more.
    pub(crate) fn abandon(self, minder: &mut Minder) {
        // Nobody is left to be told how it went.
        match self.abandon {
            Signal::KILL => drop(self.kill(minder)),
            signal => drop(self.end(signal, Duration::from_secs(30), minder)),
        }
    }

    fn id(&self) -> Pid {
        Pid::from_child(&self.leader)
    }
}

fn signal_each(processes: &[Pid], signal: Signal) {
    for process in processes {
        let _ = kill_process(*process, signal);
    }
}
