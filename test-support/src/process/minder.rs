use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
};

use rustix::process::{Pid, Signal};

/// A small process that outlives this one, to end what this one leaves behind when it is killed.
///
/// It reads from a pipe which process group to mind; when the pipe is closed it ends that group and removes its folder, if it
/// has one. It holds none of this process's output, so that nobody waits for it.
#[derive(Debug)]
pub struct Minder {
    shell: Child,
    /// None while it is dropped.
    pipe: Option<ChildStdin>,
    /// What holds the group open that others may join.
    anchor: Option<Child>,
}

impl Minder {
    /// Starts a minder that has nothing to mind yet.
    ///
    /// # Errors
    /// If no shell can be started.
    pub fn start() -> io::Result<Self> {
        Self::run("")
    }

    /// Starts a minder which makes a temporary folder for itself, so that there is no moment when nobody would remove it.
    pub(crate) fn start_with_folder(name: &str) -> io::Result<(Self, PathBuf)> {
        let template = env::temp_dir().join(format!("{name}-XXXXXX"));
        let template = template.to_str().ok_or(io::ErrorKind::InvalidFilename)?;
        let mut minder = Self::run(template)?;
        let mut folder = String::new();
        if let Some(output) = minder.shell.stdout.take() {
            BufReader::new(output).read_line(&mut folder)?;
        }
        match folder.strip_suffix('\n') {
            Some(folder) => Ok((minder, PathBuf::from(folder))),
            None => Err(io::Error::other(format!("`mktemp -d {template}` failed"))),
        }
    }

    /// Opens a process group for [`process_group`](CommandExt::process_group), so that whoever joins it is minded from the
    /// first moment. When this process is gone the group is sent `signal`, and `SIGKILL` if it is still there after half a
    /// minute.
    ///
    /// # Errors
    /// If no shell can be started.
    pub fn open_group(&mut self, signal: Signal) -> io::Result<Pid> {
        // It waits for the end of its input, which is this process's at the latest.
        let anchor = Command::new("/bin/sh")
            .args(["-c", "trap '' HUP INT TERM; read -r _"])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let group = Pid::from_child(self.anchor.insert(anchor));
        self.mind(group, signal)?;
        Ok(group)
    }

    /// Minds the group no more, as dropping the minder does too. Who is still in it stays.
    pub fn close_group(&mut self) {
        if let Some(mut anchor) = self.anchor.take() {
            // Closes its input first.
            let _ = anchor.wait();
        }
        self.forget();
    }

    /// Minds this process group from now on, and no other.
    pub(super) fn mind(&mut self, group: Pid, signal: Signal) -> io::Result<()> {
        self.tell(&format!("{} {}\n", group.as_raw_pid(), signal.as_raw()))
    }

    /// Minds no group any more, because it has ended.
    pub(super) fn forget(&mut self) {
        // Without its minder this process would have nobody to mislead.
        let _ = self.tell("\n");
    }

    fn run(template: &str) -> io::Result<Self> {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SCRIPT, "mmate-minder", template])
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // Out of reach of the terminal's Ctrl-C.
            .process_group(0);
        let mut shell = command.spawn()?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe, anchor: None })
    }

    fn tell(&mut self, line: &str) -> io::Result<()> {
        match &mut self.pipe {
            Some(pipe) => pipe.write_all(line.as_bytes()),
            None => Ok(()),
        }
    }
}

impl Drop for Minder {
    fn drop(&mut self) {
        if self.anchor.is_some() {
            self.close_group();
        }
        self.pipe = None;
        let _ = self.shell.wait();
    }
}

/// Nothing but the end of the pipe ends it: neither a signal nor that nobody reads what the folder's name is any more.
const SCRIPT: &str = r#"
trap '' HUP INT PIPE TERM
template=$1 folder= group= signal=
if [ -n "$template" ]; then
    folder=$(mktemp -d "$template") || exit
    printf '%s\n' "$folder"
fi
exec >/dev/null
while read -r next_group next_signal; do group=$next_group signal=$next_signal; done
if [ -n "$group" ]; then
    kill -s "$signal" -- "-$group"
    kill -s CONT -- "-$group"
    tries=0
    while kill -s 0 -- "-$group" && [ "$tries" -lt 400 ]; do
        [ "$tries" -eq 300 ] && kill -s KILL -- "-$group"
        sleep 0.1
        tries=$((tries + 1))
    done
fi
if [ -n "$folder" ]; then
    # Once more, for what the last process wrote meanwhile.
    rm -rf -- "$folder" || { sleep 1; rm -rf -- "$folder"; }
fi
"#;
