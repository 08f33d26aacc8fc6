//! Locks and tasks: those of std and tokio, or with `--cfg shuttle` those whose order shuttle decides, which tries one
//! after another.

#[cfg(not(shuttle))]
pub(crate) use std::sync::{Mutex, MutexGuard};

#[cfg(shuttle)]
pub(crate) use shuttle::sync::{Mutex, MutexGuard};

#[cfg(all(shuttle, any(feature = "mysql", feature = "postgres", feature = "redis")))]
pub(crate) use shuttle::future::spawn;
#[cfg(all(not(shuttle), any(feature = "mysql", feature = "postgres", feature = "redis")))]
pub(crate) use tokio::spawn;
