use std::{
    io::{self, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
};

use rustix::process::Signal;

/// A small process that outlives this one, to end what this one leaves behind when it is killed.
///
/// It reads from a pipe which process group to mind; when the pipe is closed it ends that group and removes the folder. It
/// says nothing and holds none of this process's output, so that nobody waits for it.
#[derive(Debug)]
pub struct Minder {
    shell: Child,
    /// None once dismissed.
    pipe: Option<ChildStdin>,
}

impl Minder {
    /// Starts a minder for `folder`, to be removed after the group has ended.
    ///
    /// The group is sent `signal`, and `SIGKILL` if it is still there after five seconds.
    ///
    /// # Errors
    /// If no shell can be started.
    pub fn start(folder: Option<&Path>, signal: Signal) -> io::Result<Self> {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SCRIPT, "mmate-minder", &signal.as_raw().to_string()])
            .args(folder)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Out of reach of the terminal's Ctrl-C.
            .process_group(0);
        let mut shell = command.spawn()?;
        let pipe = shell.stdin.take();
        Ok(Self { shell, pipe })
    }

    /// Minds this process group from now on, and no other.
    ///
    /// # Errors
    /// If the minder is gone.
    pub fn mind(&mut self, group: u32) -> io::Result<()> {
        self.tell(&format!("{group}\n"))
    }

    /// Minds no group any more, because it has ended.
    pub fn forget(&mut self) {
        // Without its minder this process would have nobody to mislead.
        let _ = self.tell("\n");
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
        self.pipe = None;
        let _ = self.shell.wait();
    }
}

const SCRIPT: &str = r#"
trap '' HUP INT TERM
signal=$1 folder=${2-} group=
while read -r line; do group=$line; done
if [ -n "$group" ]; then
    kill -s "$signal" -- "-$group"
    tries=0
    while kill -s 0 -- "-$group" && [ "$tries" -lt 100 ]; do
        [ "$tries" -eq 50 ] && kill -s KILL -- "-$group"
        sleep 0.1
        tries=$((tries + 1))
    done
fi
if [ -n "$folder" ]; then
    # Once more, for what the last process wrote meanwhile.
    rm -rf -- "$folder" || { sleep 1; rm -rf -- "$folder"; }
fi
"#;
