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
    process::{Group, Launch, Minder},
};

/// What all servers have in common: a program in a folder, on its ports, that can be stopped, killed and started again.
#[derive(Debug)]
pub(crate) struct Server {
    name: &'static str,
    plan: Plan,
    minder: Minder,
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
    /// What ends it at once when nobody needs its data any more.
    pub(crate) abandon: Signal,
    pub(crate) folder: Folder,
    pub(crate) ports: Vec<Port>,
}

/// Starts a server; with other ports once more if another process took one of these in between.
pub(crate) fn with_fresh_ports(
    name: &'static str,
    mut plan: impl FnMut() -> Result<Plan, StartFailure>,
) -> Result<Server, StartError> {
    let mut further_tries = 1..=4;
    loop {
        let plan = plan().map_err(|failure| StartError { server: name, failure })?;
        match Server::start(name, plan) {
            Err(StartError { failure: StartFailure::PortTaken { .. }, .. })
                if further_tries.next().is_some() => {}
            other => return other,
        }
    }
}

/// Generous: the machine may be busy compiling.
const START_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const ABANDON_LIMIT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

impl Server {
    fn start(name: &'static str, plan: Plan) -> Result<Self, StartError> {
        let minder = Minder::start(Some(plan.folder.path()), plan.abandon)
            .map_err(StartFailure::io("start the process that minds the server"))
            .map_err(|failure| StartError { server: name, failure })?;
        let mut server = Self { name, plan, minder, group: None };
        server.prepare().map_err(|failure| server.error(failure))?;
        server.start_again()?;
        Ok(server)
    }

    /// Starts it, if it does not run, with its data on its ports, and waits until it answers.
    pub(crate) fn start_again(&mut self) -> Result<(), StartError> {
        if self.group.is_some() {
            return Ok(());
        }
        let (port, answers) = (self.port(), self.plan.answers);
        let launch = self.plan.launch.clone();
        let ready = self.run(&launch, |group| match group.ended() {
            Some(status) => Some(Err(StartFailure::Ended {
                program: launch.name(),
                status,
                log: launch.tail(),
            })),
            None => answers(port).then_some(Ok(())),
        });
        ready.map_err(|failure| {
            self.kill();
            self.error(failure)
        })
    }

    /// Kills it; its data stays.
    pub(crate) fn kill(&mut self) {
        if let Some(mut group) = self.group.take() {
            group.kill(&mut self.minder);
        }
    }

    /// Stops it gracefully; its data stays.
    pub(crate) fn stop(&mut self) -> Result<(), StopError> {
        let Some(mut group) = self.group.take() else { return Ok(()) };
        match group.end(self.plan.stop, STOP_LIMIT, &mut self.minder) {
            true => Ok(()),
            false => Err(StopError { server: self.name, limit: STOP_LIMIT }),
        }
    }

    /// Lets it stand still.
    pub(crate) fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// The first of its ports.
    pub(crate) fn port(&self) -> u16 {
        self.plan.ports[0].number()
    }

    pub(crate) fn folder(&self) -> &Folder {
        &self.plan.folder
    }

    /// Another program, in the server's folder and with its environment.
    pub(crate) fn command(&self, program: &Path) -> Command {
        self.plan.launch.command(program)
    }

    fn prepare(&mut self) -> Result<(), StartFailure> {
        let Some(launch) = self.plan.prepare.take() else { return Ok(()) };
        let done = self.run(&launch, |group| {
            let status = group.ended()?;
            let failure =
                || StartFailure::Ended { program: launch.name(), status, log: launch.tail() };
            Some(if status.success() { Ok(()) } else { Err(failure()) })
        });
        self.kill();
        done
    }

    /// Starts a program and asks until there is an answer.
    fn run(
        &mut self,
        launch: &Launch,
        mut answer: impl FnMut(&mut Group) -> Option<Result<(), StartFailure>>,
    ) -> Result<(), StartFailure> {
        let group = Group::start(launch, &mut self.minder)
            .map_err(StartFailure::io(format!("run {}", launch.program().display())))?;
        let group = self.group.insert(group);
        let begin = Instant::now();
        loop {
            if let Some(answer) = answer(group) {
                return answer;
            }
            if begin.elapsed() > START_LIMIT {
                return Err(StartFailure::NotReady {
                    program: launch.name(),
                    limit: START_LIMIT,
                    log: launch.tail(),
                });
            }
            thread::sleep(POLL);
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = &self.group {
            group.signal(signal);
        }
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
        if let Some(mut group) = self.group.take() {
            if self.plan.abandon == Signal::KILL {
                group.kill(&mut self.minder);
            } else {
                group.end(self.plan.abandon, ABANDON_LIMIT, &mut self.minder);
            }
        }
    }
}
