use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Stdio},
};

use rustix::process::Signal;

use crate::{
    error::{LogTail, StartFailure},
    folder::{Account, Folder},
    program::search_path,
};

/// How to start a program in a server's folder: with nothing of the caller's environment but `PATH`, and with its output
/// in a log.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    folder: PathBuf,
    account: Option<Account>,
    log: PathBuf,
    abandon: Signal,
}

impl Launch {
    pub(crate) fn new(program: PathBuf, folder: &Folder) -> Self {
        let mut log = program.file_name().unwrap_or_default().to_owned();
        log.push(".log");
        Self {
            program,
            arguments: Vec::new(),
            environment: vec![
                ("PATH".into(), search_path()),
                ("HOME".into(), folder.path().into()),
                ("LANG".into(), "C.UTF-8".into()),
                ("LC_ALL".into(), "C.UTF-8".into()),
            ],
            folder: folder.path().to_owned(),
            account: folder.account(),
            log: folder.join(log.to_string_lossy().as_ref()),
            abandon: Signal::KILL,
        }
    }

    #[must_use]
    pub(crate) fn arguments(
        mut self,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    #[must_use]
    pub(crate) fn environment(
        mut self,
        variables: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>,
    ) -> Self {
        self.environment
            .extend(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// What to end it with when its data is of no use any more, instead of `SIGKILL`.
    #[must_use]
    pub(crate) fn abandoned_by(mut self, signal: Signal) -> Self {
        self.abandon = signal;
        self
    }

    pub(super) fn abandon(&self) -> Signal {
        self.abandon
    }

    pub(crate) fn name(&self) -> String {
        self.program.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The error for an operating system that refuses to run it.
    pub(crate) fn failure(&self) -> impl FnOnce(io::Error) -> StartFailure {
        StartFailure::io(format!("run {}", self.program.display()))
    }

    /// What it said last.
    pub(crate) fn tail(&self) -> LogTail {
        LogTail::of_file(&self.log)
    }

    /// Another program, in the same folder and with the same environment.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.folder)
            .stdin(Stdio::null());
        if let Some(account) = self.account {
            command.uid(account.user).gid(account.group);
        }
        command
    }

    /// The program behind a gate, as leader of a process group of its own: it begins when it reads a line from its standard
    /// input, and it never does if that is closed first.
    pub(super) fn gated(&self) -> io::Result<Command> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = self.command("/bin/sh");
        command
            .args(["-c", r#"read -r _ && exec "$@" </dev/null"#, "gate"])
            .arg(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        Ok(command)
    }
}
