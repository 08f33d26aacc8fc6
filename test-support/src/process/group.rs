use std::{
    io::{self, Write},
    process::{Child, ExitStatus},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::{Launch, Minder, tree};

/// A running program with its children: a process group of its own, under a minder's eyes.
#[derive(Debug)]
pub(crate) struct Group {
    leader: Child,
}

impl Group {
    /// Starts the program so that at no moment it runs without being minded.
    pub(crate) fn start(launch: &Launch, minder: &mut Minder) -> io::Result<Self> {
        let mut group = Self { leader: launch.gated()?.spawn()? };
        let opened =
            minder.mind(group.leader.id()).and_then(|()| match group.leader.stdin.take() {
                Some(mut gate) => gate.write_all(b"go\n"),
                None => Ok(()),
            });
        match opened {
            Ok(()) => Ok(group),
            Err(error) => {
                group.kill(minder);
                Err(error)
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        // An answer other than Ok means that nobody is left to be told.
        let _ = kill_process_group(self.id(), signal);
    }

    /// Sends the signal, and kills what is left after the limit. Returns whether the leader ended by itself.
    pub(crate) fn end(&mut self, signal: Signal, limit: Duration, minder: &mut Minder) -> bool {
        let below = tree::below(self.id());
        self.signal(signal);
        // A paused program does not see it otherwise.
        self.signal(Signal::CONT);
        let begin = Instant::now();
        while self.ended().is_none() && begin.elapsed() < limit {
            thread::sleep(Duration::from_millis(10));
        }
        let ended = self.ended().is_some();
        self.kill(minder);
        // They may have outlived their parent for a moment.
        tree::wait_until_gone(&below);
        ended
    }

    /// How the leader ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.leader.try_wait().ok().flatten()
    }

    /// Kills the leader and everything below it, and waits until all are gone.
    pub(crate) fn kill(&mut self, minder: &mut Minder) {
        let below = tree::below(self.id());
        self.signal(Signal::KILL);
        for process in &below {
            let _ = kill_process(*process, Signal::KILL);
        }
        let _ = self.leader.wait();
        tree::wait_until_gone(&below);
        minder.forget();
    }

    fn id(&self) -> Pid {
        Pid::from_child(&self.leader)
    }
}
