//! What the services of this process have logged.

use std::io::{self, Write};
use std::sync::{LazyLock, Mutex};

use tracing_subscriber::EnvFilter;

static TOLD: Mutex<Vec<u8>> = Mutex::new(Vec::new());
static IS_SHOWN: LazyLock<bool> = LazyLock::new(|| std::env::var_os("RUST_LOG").is_some());

/// Keeps warnings from now on; with `RUST_LOG` what that asks for, and shows it.
pub(crate) fn keep() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| "mmate_amqp=warn".into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false);
    // An error says that another test has done it.
    let _ = log.with_writer(|| Keeper).try_init();
}

/// Whether there is a line in the log with all these texts.
///
/// # Panics
/// If whoever wrote the log did.
#[must_use]
pub fn was_told(texts: &[&str]) -> bool {
    let told = TOLD.lock().unwrap();
    let told = String::from_utf8_lossy(&told);
    told.lines().any(|line| texts.iter().all(|text| line.contains(text)))
}

struct Keeper;

impl Write for Keeper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        TOLD.lock().unwrap().extend_from_slice(bytes);
        if *IS_SHOWN {
            io::stderr().write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
