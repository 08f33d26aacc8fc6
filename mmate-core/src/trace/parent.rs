//! A place in a trace.

use std::fmt;
use std::str::FromStr;

/// A place in a trace, as the header `traceparent` of the W3C's Trace Context names it: the trace
/// and the span within it.
///
/// ```
/// use mmate_core::TraceParent;
///
/// let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// let place: TraceParent = text.parse()?;
/// assert_eq!(place.trace_id(), "0af7651916cd43dd8448eb211c80319c");
/// assert_eq!(place.to_string(), text);
/// # Ok::<(), mmate_core::InvalidTraceParent>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    trace: [u8; 16],
    span: [u8; 8],
    flags: u8,
}

/// A text that names no place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not of the form 00-{{32 hexadecimal digits}}-{{16}}-{{2}}, or names no trace")]
#[non_exhaustive]
pub struct InvalidTraceParent;

impl TraceParent {
    /// Of these bytes, as OpenTelemetry has them.
    #[cfg(feature = "otel")]
    pub(super) fn new(trace: [u8; 16], span: [u8; 8], flags: u8) -> Option<Self> {
        (trace != [0; 16] && span != [0; 8]).then_some(Self { trace, span, flags })
    }

    /// Trace, span and flags.
    #[cfg(feature = "otel")]
    pub(super) fn parts(&self) -> ([u8; 16], [u8; 8], u8) {
        (self.trace, self.span, self.flags)
    }

    /// The trace's id, 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        self.to_string()[3..35].to_owned()
    }
}

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    /// What later versions add at the end is left out.
    fn from_str(text: &str) -> Result<Self, InvalidTraceParent> {
        let mut parts = text.split('-');
        let mut part = || parts.next().ok_or(InvalidTraceParent);
        let (version, trace, span, flags) = (part()?, part()?, part()?, part()?);
        let [version] = bytes(version)?;
        let is_more = parts.next().is_some();
        let (trace, span, [flags]) = (bytes(trace)?, bytes(span)?, bytes(flags)?);
        let is_known = version != 0xff && !(version == 0 && is_more);
        if is_known && trace != [0; 16] && span != [0; 8] {
            Ok(Self { trace, span, flags })
        } else {
            Err(InvalidTraceParent)
        }
    }
}

/// The bytes of lower-case hexadecimal digits.
fn bytes<const N: usize>(digits: &str) -> Result<[u8; N], InvalidTraceParent> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(InvalidTraceParent),
    };
    if digits.len() != 2 * N {
        return Err(InvalidTraceParent);
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(bytes)
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.span.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{:02x}", self.flags)
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn only_what_names_a_span_of_a_trace_is_taken() {
        assert_eq!(TEXT.parse::<TraceParent>().unwrap().to_string(), TEXT);
        let later = TEXT.replacen("00", "01", 1) + "-what-is-new";
        assert_eq!(later.parse::<TraceParent>().unwrap().to_string(), TEXT);
        for wrong in [
            String::new(),
            TEXT.to_uppercase(),
            TEXT.replacen("00", "ff", 1),
            format!("{TEXT}-more"),
            format!("{TEXT}0"),
            TEXT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            TEXT.replace("b7ad6b7169203331", &"0".repeat(16)),
            TEXT.replace("b7ad6b7169203331", "ä7ad6b716920333"),
            TEXT[..52].to_owned(),
        ] {
            assert_eq!(wrong.parse::<TraceParent>(), Err(InvalidTraceParent), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd_to_be_refused(text in "\\PC{0,60}") {
            let _ = text.parse::<TraceParent>();
        }

        #[test]
        fn what_was_written_is_read(trace in 1_u128.., span in 1_u64.., flags: u8) {
            let text = format!("00-{trace:032x}-{span:016x}-{flags:02x}");
            let place = text.parse::<TraceParent>().unwrap();
            prop_assert_eq!(place.to_string(), text);
            prop_assert_eq!(place.trace_id(), format!("{trace:032x}"));
        }
    }
}
