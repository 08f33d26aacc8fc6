use std::{
    collections::HashMap,
    fs, thread,
    time::{Duration, Instant},
};

use rustix::process::Pid;

/// The processes below `root`, from `/proc`; none where there is no `/proc`.
///
/// A server's children may have left its process group: PostgreSQL's and Erlang's call `setsid`.
pub(super) fn below(root: Pid) -> Vec<Pid> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if let Some(status) = Status::of(pid) {
            children.entry(status.parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut waiting = vec![root.as_raw_pid()];
    while let Some(parent) = waiting.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            waiting.push(child);
            found.extend(Pid::from_raw(child));
        }
    }
    found
}

/// Waits until none of them runs any more; not for ever, because a process can hang in the kernel.
pub(super) fn wait_until_gone(processes: &[Pid]) {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(10)
        && processes
            .iter()
            .any(|pid| Status::of(pid.as_raw_pid()).is_some_and(|status| status.runs))
    {
        thread::sleep(Duration::from_millis(5));
    }
}

struct Status {
    parent: i32,
    runs: bool,
}

impl Status {
    /// From `/proc/PID/stat`, see proc_pid_stat(5): `pid (name) state parent …`, where the name may hold anything.
    fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let ended = matches!(*fields.first()?, "Z" | "X");
        let parent = fields.get(1)?.parse().ok()?;
        // The first thread of an ended process does not wait for the others, and those still hold its ports.
        let threads: u32 = fields.get(17)?.parse().ok()?;
        Some(Self { parent, runs: !ended || threads > 1 })
    }
}
