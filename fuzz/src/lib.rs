//! Everything in mmate that reads what a stranger wrote, as targets that take any bytes.
//!
//! A target panics where mmate does, and where what it read breaks a law: what is written again reads the same, what
//! matches is what the definition says, no message vanishes. The inputs that are kept are in `corpus/`, a folder for each
//! target. The tests give each target all of them and changed ones; `scripts/fuzz` goes on for as long as one likes,
//! guided by what of the code each input reaches.

mod mutate;
mod targets;

use std::path::{Path, PathBuf};

pub use mutate::Mutator;
pub use targets::{TARGETS, Target};

/// Where the inputs of a target are kept.
#[must_use]
pub fn corpus(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}
