use std::{
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    error::{StartError, StartFailure, StopError},
    folder::Folder,
    port::Port,
    process::{Group, Launch},
};

/// What all servers have in common: a program in a folder, on its ports, that can be stopped, killed and started again.
#[derive(Debug)]
pub(crate) struct Server {
    name: &'static str,
    plan: Plan,
    group: Option<Group>,
}

/// How a server is started, asked and ended.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) launch: Launch,
    /// A program to be run to its end before the first start.
    pub(crate) prepare: Option<Launch>,
    /// Whether the server on the first of its ports answers as it should.
    pub(crate) answers: fn(u16) -> bool,
    /// What asks it to stop gracefully.
    pub(crate) stop: Signal,
    pub(crate) folder: Folder,
    pub(crate) ports: Vec<Port>,
}

/// Starts a server; with other ports once more if another process took one of these in between.
pub(crate) fn with_fresh_ports(
    name: &'static str,
    mut plan: impl FnMut() -> Result<Plan, StartFailure>,
) -> Result<Server, StartError> {
    let mut further_tries = 1..=2;
    loop {
        let plan = plan().map_err(|failure| StartError { server: name, failure })?;
        match Server::start(name, plan) {
            Err(StartError { failure: StartFailure::PortTaken { .. }, .. })
                if further_tries.next().is_some() => {}
            other => return other,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Answers,
    Ends,
}

/// Generous: the machine may be busy compiling.
const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

impl Server {
    fn start(name: &'static str, plan: Plan) -> Result<Self, StartError> {
        let mut server = Self { name, plan, group: None };
        server.prepare().map_err(|failure| server.error(failure))?;
        server.start_again()?;
        Ok(server)
    }

    /// Starts it with its data on its ports, unless it runs, and waits until it answers.
    pub(crate) fn start_again(&mut self) -> Result<(), StartError> {
        let launch = self.plan.launch.clone();
        let running = self.group.take().map(|group| self.wait(group, &launch, Until::Answers));
        let ready = match running {
            // It may have ended by itself, or be about to.
            None | Some(Err(StartFailure::Ended { .. })) => self.run(&launch, Until::Answers),
            Some(ready) => ready,
        };
        ready.map_err(|failure| self.error(failure))
    }

    /// Kills it; its data stays.
    pub(crate) fn kill(&mut self) {
        if let Some(group) = self.group.take() {
            // How it ended is no news.
            let _ = group.kill(&mut self.plan.folder.minder);
        }
    }

    /// Stops it gracefully; its data stays.
    pub(crate) fn stop(&mut self) -> Result<(), StopError> {
        let Some(group) = self.group.take() else { return Ok(()) };
        match group.end(self.plan.stop, STOP_LIMIT, &mut self.plan.folder.minder) {
            Ok(true) => Ok(()),
            _ => Err(StopError { server: self.name, limit: STOP_LIMIT }),
        }
    }

    /// Sends a signal to its process group.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(group) = &self.group {
            group.signal(signal);
        }
    }

    /// Sends a signal to its process group and to those of its children who have left it.
    pub(crate) fn signal_all(&self, signal: Signal) {
        if let Some(group) = &self.group {
            group.signal_all(signal);
        }
    }

    /// The first of its ports.
    pub(crate) fn port(&self) -> u16 {
        self.plan.ports[0].number()
    }

    /// Another of its ports; the first is number 0.
    pub(crate) fn further_port(&self, number: usize) -> Option<u16> {
        self.plan.ports.get(number).map(Port::number)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.plan.folder.path()
    }

    /// Waits until something holds that takes a while after the server answers.
    pub(crate) fn wait_until(&self, mut holds: impl FnMut() -> bool) -> Result<(), StartError> {
        let begin = Instant::now();
        while !holds() {
            if begin.elapsed() > START_LIMIT {
                let launch = &self.plan.launch;
                let (program, log) = (launch.name(), launch.tail());
                let failure = StartFailure::NotReady { program, limit: START_LIMIT, log };
                return Err(StartError { server: self.name, failure });
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Another program, in the server's folder and with its environment.
    pub(crate) fn command(&self, program: &Path) -> Command {
        self.plan.launch.command(program)
    }

    fn prepare(&mut self) -> Result<(), StartFailure> {
        match self.plan.prepare.take() {
            Some(launch) => self.run(&launch, Until::Ends),
            None => Ok(()),
        }
    }

    /// Runs a program until the server answers, or until the program ends well.
    fn run(&mut self, launch: &Launch, until: Until) -> Result<(), StartFailure> {
        let group = Group::start(launch, &mut self.plan.folder.minder).map_err(launch.failure())?;
        self.wait(group, launch, until)
    }

    fn wait(&mut self, group: Group, launch: &Launch, until: Until) -> Result<(), StartFailure> {
        let begin = Instant::now();
        while begin.elapsed() < START_LIMIT {
            if group.has_ended() {
                let ended = group.kill(&mut self.plan.folder.minder);
                let status = ended.map_err(launch.failure())?;
                if until == Until::Ends && status.success() {
                    return Ok(());
                }
                return Err(StartFailure::Ended {
                    program: launch.name(),
                    status,
                    log: launch.tail(),
                });
            }
            if until == Until::Answers && (self.plan.answers)(self.port()) {
                self.group = Some(group);
                return Ok(());
            }
            thread::sleep(POLL);
        }
        group.abandon(&mut self.plan.folder.minder);
        Err(StartFailure::NotReady {
            program: launch.name(),
            limit: START_LIMIT,
            log: launch.tail(),
        })
    }

    /// The error to report, once nothing runs: a server that finds its port taken says so in words of its own only.
    fn error(&self, failure: StartFailure) -> StartError {
        let failure = match self.plan.ports.iter().find(|port| !port.is_free()) {
            Some(port) => StartFailure::PortTaken { port: port.number() },
            None => failure,
        };
        StartError { server: self.name, failure }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(group) = self.group.take() {
            group.abandon(&mut self.plan.folder.minder);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;
    use crate::{Redis, StartFailure};

    #[test]
    fn a_port_that_is_taken_in_between_is_replaced_by_another() {
        let mut taken = None;
        let server = with_fresh_ports("Redis", || {
            let plan = Redis::options().plan()?;
            let port = plan.ports[0].number();
            taken.get_or_insert_with(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap());
            Ok(plan)
        });
        let taken = taken.unwrap().local_addr().unwrap().port();
        assert_ne!(server.unwrap().port(), taken);
    }

    #[test]
    fn ports_that_are_taken_each_time_are_reported() {
        let mut taken = Vec::new();
        let error = with_fresh_ports("Redis", || {
            let plan = Redis::options().plan()?;
            taken.push(TcpListener::bind((Ipv4Addr::LOCALHOST, plan.ports[0].number())).unwrap());
            Ok(plan)
        });
        assert!(matches!(error.unwrap_err().failure, StartFailure::PortTaken { .. }));
        assert_eq!(taken.len(), 3);
    }
}
