use std::{fmt, io, path::Path, process::ExitStatus, time::Duration};

/// A server did not start.
#[derive(Debug, thiserror::Error)]
#[error("start {server}")]
#[non_exhaustive]
pub struct StartError {
    /// The server's name, as in `RabbitMQ`.
    pub server: &'static str,
    /// Why it did not.
    #[source]
    pub failure: StartFailure,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartFailure {
    /// A program it needs is not on this machine.
    #[error(
        "`{program}` is not installed; on Debian or Ubuntu `apt-get install {package}` installs it, \
         and `scripts/test` does so by itself"
    )]
    NotInstalled {
        /// The program that was looked for.
        program: &'static str,
        /// The package that brings it on Debian and Ubuntu.
        package: &'static str,
    },
    /// Another process took one of the ports before the server did.
    #[error("port {port} was taken in the meantime")]
    PortTaken {
        /// The port.
        port: u16,
    },
    /// The server, or a program that prepares its data, ended by itself.
    #[error("`{program}` ended with {status}; the end of its log: {log}")]
    Ended {
        /// The program.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said last.
        log: LogTail,
    },
    /// The server did not answer, or a program that prepares its data did not end, within the limit.
    #[error("`{program}` was not ready within {limit:?}; the end of its log: {log}")]
    NotReady {
        /// The program.
        program: String,
        /// How long it was given.
        limit: Duration,
        /// What it said last.
        log: LogTail,
    },
    /// The operating system refused something.
    #[error("{attempted}")]
    Io {
        /// What was being attempted.
        attempted: String,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
}

impl StartFailure {
    pub(crate) fn io(attempted: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let attempted = attempted.into();
        |source| Self::Io { attempted, source }
    }
}

/// A server did not stop on request, and was killed.
#[derive(Debug, thiserror::Error)]
#[error("stop {server} within {limit:?}; it was killed")]
#[non_exhaustive]
pub struct StopError {
    /// The server's name, as in `RabbitMQ`.
    pub server: &'static str,
    /// How long it was given.
    pub limit: Duration,
}

/// A `rabbitmqctl` command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CtlError {
    /// The program could not be run.
    #[error("run `{command}`")]
    Run {
        /// The command with its arguments.
        command: String,
        /// The operating system's answer.
        #[source]
        source: io::Error,
    },
    /// The program said no.
    #[error("`{command}` ended with {status}: {output}")]
    Failed {
        /// The command with its arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed.
        output: LogTail,
    },
}

/// The last lines of a log, printed as lines by `Debug` too, so that a failed `unwrap` can be read.
#[derive(Clone, PartialEq, Eq)]
pub struct LogTail(String);

impl LogTail {
    const LINES: usize = 80;

    fn of(text: &str) -> Self {
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        Self(lines[lines.len().saturating_sub(Self::LINES)..].join("\n"))
    }

    pub(crate) fn whole(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    pub(crate) fn of_file(path: &Path) -> Self {
        match std::fs::read(path) {
            Ok(bytes) => Self::of(&String::from_utf8_lossy(&bytes)),
            Err(error) => Self(format!("({} cannot be read: {error})", path.display())),
        }
    }
}

impl fmt::Display for LogTail {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { out.write_str("(empty)") } else { write!(out, "\n{}", self.0) }
    }
}

impl fmt::Debug for LogTail {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}
