//! A soak in parts: one that was stopped goes on later, with servers of its own, and one verdict is about all of them.

use std::fs;
use std::path::{Path, PathBuf};

use mmate_core::checker::EndState;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::options::Options;
use super::samples::Sample;
use super::timeline::Fault;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How far a soak came, with all its parts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Progress {
    /// What is run, so that nothing else goes on with it.
    command: String,
    pub(super) parts: u32,
    pub(super) seconds: f64,
    /// All messages before this one are published.
    pub(super) messages: u64,
    pub(super) effects: u64,
    /// How many processes were started.
    pub(super) starts: u64,
    pub(super) faults: Vec<Fault>,
    pub(super) samples: Vec<Sample>,
    pub(super) stuck: Vec<String>,
    pub(super) queues: Vec<(String, u64)>,
}

impl Progress {
    /// The ends of all parts, as one.
    pub(super) fn end(&self) -> EndState {
        let stuck = self.stuck.iter().cloned();
        let end = stuck.fold(EndState::default(), EndState::stuck);
        self.queues.iter().cloned().fold(end, |end, (name, messages)| end.queue(name, messages))
    }
}

/// Where the journals of the parts are.
#[derive(Debug)]
pub(super) struct Parts {
    root: PathBuf,
    _temporary: Option<tempfile::TempDir>,
    before: Progress,
}

impl Parts {
    /// Those of a new soak, or of the one to go on with.
    pub(super) fn open(options: &Options) -> Result<Self, Failure> {
        let (root, temporary) = match &options.journals {
            Some(root) => (root.clone(), None),
            None => {
                let temporary = tempfile::TempDir::new()?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let command = options.command();
        let before = match options.resume {
            true => Self::progress(&root, &command)?,
            false => Progress { command, ..Progress::default() },
        };
        fs::create_dir_all(&root)?;
        if !options.resume && fs::read_dir(&root)?.next().is_some() {
            let root = root.display();
            return Err(format!("the folder {root} is not empty: --resume goes on with the soak in it, and a new one needs another folder").into());
        }
        let parts = Self { root, _temporary: temporary, before };
        // A part that came to no end has told nobody what became of its messages.
        match fs::remove_dir_all(parts.folder()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => fs::create_dir(parts.folder())?,
        }
        Ok(parts)
    }

    fn progress(root: &Path, command: &str) -> Result<Progress, Failure> {
        let path = file(root);
        let shown = path.display();
        let text = fs::read(&path).map_err(|error| {
            format!("no part of a soak has ended in this folder: {shown}: {error}")
        })?;
        let progress: Progress = serde_json::from_slice(&text)
            .map_err(|error| format!("{shown} is not what a soak wrote: {error}"))?;
        match progress.command == command {
            true => Ok(progress),
            false => Err(format!("{shown} is of another soak, `{}`", progress.command).into()),
        }
    }

    /// What came before this part.
    pub(super) fn before(&self) -> &Progress {
        &self.before
    }

    /// The folder of this part.
    pub(super) fn folder(&self) -> PathBuf {
        self.folder_of(self.before.parts + 1)
    }

    /// The folders of all parts.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        (1..=self.before.parts + 1).map(|part| self.folder_of(part)).collect()
    }

    fn folder_of(&self, part: u32) -> PathBuf {
        self.root.join(format!("part-{part}"))
    }

    /// This part has come to its end.
    pub(super) fn note(&self, progress: &Progress) -> Result<(), Failure> {
        let path = file(&self.root);
        let unfinished = path.with_extension("new");
        fs::write(&unfinished, serde_json::to_vec(progress)?)?;
        Ok(fs::rename(unfinished, path)?)
    }
}

fn file(root: &Path) -> PathBuf {
    root.join("progress.json")
}

/// Cancelled when somebody asks the soak to end, by Ctrl-C or SIGTERM. Asked again, it leaves at once.
pub(super) fn asked_to_end() -> std::io::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let asked = CancellationToken::new();
    let token = asked.clone();
    tokio::spawn(async move {
        let mut any = async || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        any().await;
        println!(
            "what was published is handled to its end, and then the verdict comes; once more leaves at once"
        );
        token.cancel();
        any().await;
        std::process::exit(130);
    });
    Ok(asked)
}
