//! Time that all processes of a soak agree on, whatever one's clock says, and what makes a clock say something else.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

/// The same moment by two clocks: what the system knows of time, and how long it has been up, which no shift touches.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Clock {
    micros: u64,
    up: u64,
}

impl Clock {
    pub(super) fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { micros: since.as_micros().try_into().unwrap_or(u64::MAX), up: up() }
    }

    /// How many hours the clock of this process is ahead.
    pub(super) fn hours_ahead(self) -> i64 {
        const HOUR: i64 = 3_600_000_000;
        let (now, true_now) = (Self::now().micros.cast_signed(), self.micros().cast_signed());
        (now - true_now + HOUR / 2).div_euclid(HOUR)
    }

    /// Microseconds since 1970, by the clock of who made this.
    pub(super) fn micros(self) -> u64 {
        self.micros + (up() - self.up)
    }
}

#[expect(clippy::cast_sign_loss, reason = "never before the start of the system")]
fn up() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

/// libfaketime, which tells a process the time that a file says.
#[derive(Debug)]
pub(super) struct Library(PathBuf);

impl Library {
    pub(super) fn find() -> Result<Self, String> {
        let places = ["/usr/lib", "/usr/lib64", "/usr/local/lib"];
        let machine = format!("{}-linux-gnu", std::env::consts::ARCH);
        let under = |place: &str| {
            let place = Path::new(place);
            [place.join(&machine).join("faketime"), place.join("faketime")]
        };
        let all = places.into_iter().flat_map(under);
        let mut found = all.map(|folder| folder.join("libfaketime.so.1"));
        found.find(|path| path.exists()).map(Self).ok_or_else(|| {
            "libfaketime is missing, which shifts the clock of a process: install the package `faketime`".to_owned()
        })
    }

    /// Has a process look into a file for how far its clock is ahead.
    pub(super) fn preload(&self, process: &mut Command, file: &Path) {
        process
            .env("LD_PRELOAD", &self.0)
            .env("FAKETIME_TIMESTAMP_FILE", file)
            .env("FAKETIME_CACHE_DURATION", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1");
    }
}
