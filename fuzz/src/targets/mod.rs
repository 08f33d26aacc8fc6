//! The targets.

mod address;
mod configuration;
mod envelope;
mod ids;
mod message;
mod patterns;
mod service;

/// Something that reads a stranger's bytes.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Target {
    /// What `scripts/fuzz` calls it, and the folder of its inputs.
    pub name: &'static str,
    /// Reads them. Panics if that is not done as it must be.
    pub read: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "address", read: address::read },
    Target { name: "configuration", read: configuration::read },
    Target { name: "envelope", read: envelope::read },
    Target { name: "ids", read: ids::read },
    Target { name: "message", read: message::read },
    Target { name: "patterns", read: patterns::read },
    Target { name: "service", read: service::read },
];

/// The input as text, in lines, where it is text.
fn lines(input: &[u8]) -> Option<Vec<&str>> {
    Some(std::str::from_utf8(input).ok()?.split('\n').collect())
}
