use std::{
    process,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

/// A name that no other test uses, in this run or in one beside it: `name` and a suffix of letters, digits and `_`.
///
/// If `name` is an SQL identifier, so is the result. It is about twenty characters longer; databases cut identifiers off at
/// about sixty.
///
/// ```
/// use mmate_test_support::unique;
///
/// assert!(unique("orders").starts_with("orders_"));
/// assert_ne!(unique("orders"), unique("orders"));
/// ```
#[must_use]
pub fn unique(name: &str) -> String {
    static PROCESS: OnceLock<String> = OnceLock::new();
    static COUNT: AtomicU32 = AtomicU32::new(1);

    // A process id alone comes back, on the same shared broker too.
    let process =
        PROCESS.get_or_init(|| format!("{:x}{:06x}", process::id(), fastrand::u32(..1 << 24)));
    format!("{name}_{process}_{}", COUNT.fetch_add(1, Ordering::Relaxed))
}
