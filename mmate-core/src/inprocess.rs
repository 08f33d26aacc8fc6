//! A broker inside the process.
/// A broker inside the process.
#[derive(Debug, Clone, Default)]
pub struct InProcess {}
