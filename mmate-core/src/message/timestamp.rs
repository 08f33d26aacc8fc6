//! Times as text, in RFC 3339.

use std::time::SystemTime;

use jiff::Timestamp;

/// A time as RFC 3339 text in UTC.
pub(crate) fn to_text(time: SystemTime) -> String {
    match Timestamp::try_from(time) {
        Ok(timestamp) => timestamp.to_string(),
        // Beyond the year 9999: no such message can be made by a sane clock.
        Err(_) => Timestamp::MAX.to_string(),
    }
}

/// Reads RFC 3339 text with any offset and fraction; `None` if it is none.
pub(crate) fn from_text(text: &str) -> Option<SystemTime> {
    text.parse::<Timestamp>().ok().map(SystemTime::from)
}
