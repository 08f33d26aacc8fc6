//! TLS, below everything that lapin sees.
//!
//! The roots come from rustls-native-certs: a plain list, in which our own authority stands the
//! same way, so that what is trusted can be said in one sentence on every system.
//! rustls-platform-verifier would ask the system instead, which on Linux, where services run, is
//! the same list with more code between.

mod client;
mod load;
mod options;
mod verdict;

pub use options::Tls;

pub(crate) use client::Client;
pub(crate) use verdict::judge;
