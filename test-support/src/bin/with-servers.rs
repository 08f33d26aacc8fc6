//! Runs a command with private servers for it, and stops them when it ends.

use std::{
    env,
    error::Error,
    io::{self, IsTerminal},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{self, Command, ExitCode},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

use mmate_test_support::{MariaDb, Minder, PostgreSql, RabbitMq, Redis, StartError};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid,
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

const USAGE: &str = "\
Runs a command with private servers for it, and stops them when it ends.

usage: with-servers [--only NAME,…] [--] COMMAND [ARGUMENT…]

  --only NAME,…   start only these of rabbitmq, redis, postgres, mariadb

The command finds the servers by MMATE_TEST_AMQP_URL, MMATE_TEST_REDIS_URL, MMATE_TEST_POSTGRES_URL and
MMATE_TEST_MARIADB_URL. A variable that is set already is left alone, and its server is not started.
The exit code is the command's (128 + the signal's number if one ended it), 2 for a wrong call, 125 if a server does not
start, and 127 if the command cannot be run.";

fn main() -> ExitCode {
    let call = match Call::parse(env::args().skip(1)) {
        Ok(Some(call)) => call,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(complaint) => return fail(2, &format!("{complaint}\n\n{USAGE}")),
    };
    if let Err(error) = pass_signals_on() {
        return fail(125, &format!("cannot handle signals: {error}"));
    }
    let servers = match start(&call.kinds) {
        Ok(servers) => servers,
        Err(complaint) => return fail(125, &complaint),
    };
    match run(&call.command, &servers) {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(127, &format!("cannot run `{}`: {error}", call.command.join(" "))),
    }
}

fn fail(code: u8, complaint: &str) -> ExitCode {
    eprintln!("with-servers: {complaint}");
    ExitCode::from(code)
}

struct Call {
    kinds: Vec<&'static Kind>,
    command: Vec<String>,
}

/// A kind of server that can be asked for.
struct Kind {
    name: &'static str,
    variable: &'static str,
    start: fn() -> Result<Running, StartError>,
}

/// A server: it stops when this is dropped.
struct Running {
    url: String,
    _server: Box<dyn Send>,
}

static KINDS: [Kind; 4] = [
    Kind {
        name: "rabbitmq",
        variable: "MMATE_TEST_AMQP_URL",
        // Partitioned queues need it.
        start: || {
            let options = RabbitMq::options().plugin("rabbitmq_consistent_hash_exchange");
            options.start().map(|server| running(server.url(), server))
        },
    },
    Kind {
        name: "redis",
        variable: "MMATE_TEST_REDIS_URL",
        start: || Redis::start().map(|server| running(server.url(), server)),
    },
    Kind {
        name: "postgres",
        variable: "MMATE_TEST_POSTGRES_URL",
        start: || PostgreSql::start().map(|server| running(server.url(), server)),
    },
    Kind {
        name: "mariadb",
        variable: "MMATE_TEST_MARIADB_URL",
        start: || MariaDb::start().map(|server| running(server.url(), server)),
    },
];

fn running(url: String, server: impl Send + 'static) -> Running {
    Running { url, _server: Box::new(server) }
}

impl Call {
    /// `None` if help is asked for.
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut kinds: Vec<&Kind> = KINDS.iter().collect();
        let mut arguments = arguments.peekable();
        while let Some(option) = arguments.next_if(|argument| argument.starts_with('-')) {
            match option.as_str() {
                "--" => break,
                "-h" | "--help" => return Ok(None),
                "--only" => {
                    let names = arguments.next().ok_or("--only needs the names of servers")?;
                    kinds = names.split(',').map(Kind::named).collect::<Result<_, _>>()?;
                }
                _ => return Err(format!("unknown option `{option}`")),
            }
        }
        let command: Vec<String> = arguments.collect();
        if command.is_empty() {
            return Err("the command to run is missing".to_owned());
        }
        Ok(Some(Self { kinds, command }))
    }
}

impl Kind {
    fn named(name: &str) -> Result<&'static Self, String> {
        KINDS.iter().find(|kind| kind.name == name).ok_or_else(|| {
            let names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
            format!("unknown server `{name}`; there are {}", names.join(", "))
        })
    }

    fn is_given(&self) -> bool {
        env::var_os(self.variable).is_some_and(|url| !url.is_empty())
    }
}

/// Starts, side by side, those whose variable is not set.
fn start(kinds: &[&'static Kind]) -> Result<Vec<(&'static str, Running)>, String> {
    let begin = Instant::now();
    let missing: Vec<_> = kinds.iter().filter(|kind| !kind.is_given()).collect();
    let started: Vec<_> = thread::scope(|scope| {
        let starting: Vec<_> = missing.iter().map(|kind| scope.spawn(kind.start)).collect();
        starting.into_iter().map(|thread| thread.join().expect("starting never panics")).collect()
    });
    let mut servers = Vec::new();
    let mut complaints = Vec::new();
    for (kind, result) in missing.into_iter().zip(started) {
        match result {
            Ok(server) => servers.push((kind.variable, server)),
            Err(error) => complaints.push(with_sources(&error)),
        }
    }
    if !complaints.is_empty() {
        return Err(format!("failed to {}", complaints.join("\nwith-servers: failed to ")));
    }
    for (variable, server) in &servers {
        eprintln!("with-servers: {variable}={}", server.url);
    }
    eprintln!("with-servers: ready after {:.1} s", begin.elapsed().as_secs_f64());
    Ok(servers)
}

fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

/// Who is sent the signals that this process gets.
static COMMAND: Mutex<Option<Target>> = Mutex::new(None);

#[derive(Clone, Copy)]
enum Target {
    Process(Pid),
    Group(Pid),
}

/// Passes signals on to the command. Before it runs, and after, they end this process, and the minders the servers.
fn pass_signals_on() -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    thread::spawn(move || {
        for number in signals.forever() {
            let target = lock_command();
            let signal = Signal::from_named_raw(number);
            // An answer other than Ok means that the command has just ended.
            let _ = match (*target, signal) {
                (Some(Target::Process(pid)), Some(signal)) => kill_process(pid, signal),
                (Some(Target::Group(pid)), Some(signal)) => kill_process_group(pid, signal),
                _ => process::exit(128 + number),
            };
        }
    });
    Ok(())
}

fn lock_command() -> MutexGuard<'static, Option<Target>> {
    COMMAND.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the command to its end and returns the exit code that says how it went.
fn run(command: &[String], servers: &[(&str, Running)]) -> io::Result<u8> {
    let mut program = Command::new(&command[0]);
    program.args(&command[1..]);
    program.envs(servers.iter().map(|(variable, server)| (variable, &server.url)));
    // At a terminal Ctrl-C reaches the command by itself, and only the terminal's own group may read from it. Elsewhere a
    // group of its own is what a signal can be passed on to as a whole, to cargo and to the tests it runs.
    let mut minder = Minder::start()?;
    let group =
        if io::stdin().is_terminal() { None } else { Some(minder.open_group(Signal::TERM)?) };
    if let Some(group) = group {
        program.process_group(group.as_raw_pid());
    }
    // Locked, so that a signal does not come between.
    let mut target = lock_command();
    let mut child = program.spawn()?;
    let pid = Pid::from_child(&child);
    *target = Some(group.map_or(Target::Process(pid), Target::Group));
    drop(target);
    // The process id stays the command's until it is waited for, so that no signal goes to a stranger.
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
    *lock_command() = None;
    minder.close_group();
    let status = child.wait()?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
}
