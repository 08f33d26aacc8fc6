//! The consumers, as processes that are started again whenever they end.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::clock::Library;
use super::consumer::Role;

/// The consumers.
#[derive(Debug, Clone)]
pub(crate) struct Fleet(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    program: PathBuf,
    role: Role,
    journals: PathBuf,
    faketime: Option<Library>,
    slots: Vec<Mutex<Slot>>,
    starts: AtomicU64,
    ready: AtomicU32,
    stop: CancellationToken,
}

/// The place of one consumer; it has another process after each end.
#[derive(Debug, Default)]
struct Slot {
    instance: String,
    process: Option<Pid>,
    generation: u32,
    /// Its clock, as it sees it.
    hours_ahead: i64,
}

impl Slot {
    fn has_ended(&mut self) {
        (self.process, self.hours_ahead) = (None, 0);
    }
}

/// Between the end of a process and the next one, where nobody has asked it to end.
const PAUSE: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(90);

impl Fleet {
    pub(super) fn new(
        program: PathBuf,
        role: Role,
        journals: PathBuf,
        faketime: Option<Library>,
        size: u16,
        started_before: u64,
    ) -> Self {
        let generation = started_before.try_into().unwrap_or(u32::MAX / 2);
        let slot = || Mutex::new(Slot { generation, ..Slot::default() });
        Self(Arc::new(Shared {
            program,
            role,
            journals,
            faketime,
            slots: (0..size).map(|_| slot()).collect(),
            starts: AtomicU64::new(started_before),
            ready: AtomicU32::new(0),
            stop: CancellationToken::new(),
        }))
    }

    /// Starts all of them; what is returned ends when they have been stopped.
    pub(super) fn start(&self) -> JoinSet<()> {
        let keep = |slot| {
            let fleet = self.clone();
            async move { fleet.keep(slot).await }
        };
        (0..self.0.slots.len()).map(keep).collect()
    }

    /// Asks all of them to end.
    pub(super) async fn stop(&self, mut keepers: JoinSet<()>) -> Result<(), String> {
        self.0.stop.cancel();
        for slot in 0..self.0.slots.len() {
            self.signal(slot, Signal::CONT);
            self.signal(slot, Signal::TERM);
        }
        let ended = async { while keepers.join_next().await.is_some() {} };
        let ended = tokio::time::timeout(PATIENCE, ended).await;
        ended.map_err(|_| format!("consumers still ran {PATIENCE:?} after SIGTERM"))
    }

    async fn keep(&self, slot: usize) {
        while !self.0.stop.is_cancelled() {
            let mut process = self.spawn(slot);
            // Waiting would close it, and it is how the process sees that we are there.
            let _we_are_there = process.stdin.take();
            let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
            if let Ok(Some(_)) = lines.next_line().await {
                self.0.ready.fetch_add(1, Ordering::Relaxed);
            }
            while let Ok(Some(line)) = lines.next_line().await {
                self.slot(slot).hours_ahead = line.parse().unwrap_or_default();
            }
            let status = process.wait().await.unwrap();
            self.slot(slot).has_ended();
            if status.code().is_some_and(|code| code != 0) && !self.0.stop.is_cancelled() {
                // It could not start, or gave up. Whatever keeps services running waits a little.
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    fn spawn(&self, number: usize) -> tokio::process::Child {
        let mut slot = self.slot(number);
        slot.generation += 1;
        slot.instance = format!("c{number}-{}", slot.generation);
        let role = Role {
            instance: slot.instance.clone(),
            journal: self.0.journals.join(format!("consumer-{number}.jsonl")),
            ..self.0.role.clone()
        };
        let mut process = Command::new(&self.0.program);
        if let Some(faketime) = &self.0.faketime {
            let file = self.clock_file(number);
            if !file.exists() {
                self.write_clock(number, 0);
            }
            faketime.preload(&mut process, &file);
        }
        let process = process
            .env("SOAK_ROLE", serde_json::to_string(&role).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(self.log(number))
            .kill_on_drop(true)
            // What ends the soak from a terminal is not for them.
            .process_group(0)
            .spawn()
            .unwrap();
        slot.process = process.id().and_then(|id| Pid::from_raw(id.try_into().unwrap()));
        self.0.starts.fetch_add(1, Ordering::Relaxed);
        process
    }

    /// What consumers say of themselves goes beside their journals.
    fn log(&self, number: usize) -> Stdio {
        let path = self.0.journals.join(format!("consumer-{number}.log"));
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
        opened.map_or_else(|_| Stdio::null(), Stdio::from)
    }

    /// Sets the clock of the consumer in this place, and returns whether the consumer sees it before it ends.
    pub(crate) async fn set_clock(&self, slot: usize, hours_ahead: i64) -> bool {
        const PATIENCE: Duration = Duration::from_secs(10);
        self.write_clock(slot, hours_ahead);
        let since = Instant::now();
        while self.slot(slot).hours_ahead != hours_ahead && since.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.slot(slot).hours_ahead == hours_ahead
    }

    fn write_clock(&self, slot: usize, hours_ahead: i64) {
        // In one step: half of a file is another time.
        let (file, draft) = (self.clock_file(slot), self.clock_file(slot).with_extension("draft"));
        std::fs::write(&draft, format!("{hours_ahead:+}h")).unwrap();
        std::fs::rename(draft, file).unwrap();
    }

    fn clock_file(&self, slot: usize) -> PathBuf {
        self.0.journals.join(format!("consumer-{slot}.clock"))
    }

    /// The name of the consumer in this place.
    pub(crate) fn instance(&self, slot: usize) -> String {
        self.slot(slot).instance.clone()
    }

    /// Sends a signal to the consumer in this place, and returns its name, if one is running.
    pub(crate) fn signal(&self, slot: usize, signal: Signal) -> Option<String> {
        let slot = self.slot(slot);
        kill_process(slot.process?, signal).ok()?;
        Some(slot.instance.clone())
    }

    /// Kills a consumer, if it still runs.
    pub(crate) fn kill_by_name(&self, instance: &str) -> bool {
        let all = 0..self.0.slots.len();
        let slot = all.into_iter().find(|slot| self.slot(*slot).instance == instance);
        slot.is_some_and(|slot| self.signal(slot, Signal::KILL).is_some())
    }

    /// A place by chance.
    pub(crate) fn any(&self) -> usize {
        fastrand::usize(..self.0.slots.len())
    }

    /// The first one is never made to end, so that what its memory does over time can be seen. A fleet of one has no
    /// other.
    pub(crate) fn any_but_the_first(&self) -> usize {
        match self.0.slots.len() {
            1 => 0,
            size => fastrand::usize(1..size),
        }
    }

    /// The names of all that run now.
    pub(crate) fn instances(&self) -> Vec<String> {
        let all = 0..self.0.slots.len();
        all.map(|slot| self.slot(slot).instance.clone()).collect()
    }

    /// How many processes were started so far.
    pub(super) fn starts(&self) -> u64 {
        self.0.starts.load(Ordering::Relaxed)
    }

    /// How many of them said that they consume.
    pub(super) fn ready(&self) -> u32 {
        self.0.ready.load(Ordering::Relaxed)
    }

    /// The resident memory of the first one, in bytes. On Linux only.
    pub(super) fn memory(&self) -> Option<u64> {
        let process = self.slot(0).process?.as_raw_nonzero();
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(resident.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
    }

    fn slot(&self, number: usize) -> std::sync::MutexGuard<'_, Slot> {
        self.0.slots[number].lock().unwrap()
    }
}
