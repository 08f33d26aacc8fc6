//! What can be a name, a key or an id.

use crate::store::{StoreError, StoreErrorKind};

/// What a text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    Name,
    Key,
    #[cfg(feature = "redis")]
    Id,
}

const LONGEST: usize = 255;

/// What every database can keep.
pub(super) fn check(what: Text, text: &str) -> Result<(), StoreError> {
    let what = match what {
        Text::Name => "sequence's name",
        Text::Key => "key",
        #[cfg(feature = "redis")]
        Text::Id => "message's id",
    };
    if text.len() <= LONGEST && !text.contains('\0') {
        return Ok(());
    }
    let wrong = format!(
        "a {what} has {LONGEST} bytes at most and no NUL; this one has {} bytes",
        text.len()
    );
    Err(StoreError::new(StoreErrorKind::Permanent, "take a number", wrong))
}
