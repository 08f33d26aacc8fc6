//! Logs and progress on standard error, one not tearing the other.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Starts the log on standard error, and a progress bar that it does not tear. `RUST_LOG` says
/// what is logged; `default` where it is not set.
///
/// The bar shows on a terminal only.
#[must_use]
pub fn start(default: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    if io::stderr().is_terminal() {
        bar.enable_steady_tick(Duration::from_millis(100));
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(BesideBar(bar.clone()))
        .init();
    bar
}

/// Takes the bar away while a line is written.
struct BesideBar(ProgressBar);

impl<'a> MakeWriter<'a> for BesideBar {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        Self(self.0.clone())
    }
}

impl Write for BesideBar {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
