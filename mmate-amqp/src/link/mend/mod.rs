//! Reading what lapin cannot read.
//!
//! A broker passes on message ids, routing keys and names of headers as the bytes they came as.
//! lapin 4.12 takes them for UTF-8, and gives its connection up over the first that is not. The
//! broker then shows the message again, for ever; and if a delivery limit ends that, then for the
//! innocent messages that were on their way on the same connection too.
//!
//! So the stream is mended before lapin reads it: each byte that is not UTF-8, in a place where
//! lapin wants it, becomes U+001A, SUBSTITUTE, which is what ASCII has for this. The length stays.
//! An id with a control character is none to core, so such a message is dead-lettered as malformed;
//! one that has a header under such a name is like any other.
//!
//! Tables and arrays in headers may be within each other as deep as a frame has room for, which is
//! some twenty thousand levels. lapin reads them by recursion and has no limit: a header of 9 kB
//! overflows the stack of its thread, which ends the process. The innermost become bytes, by their
//! type letter; to core they are no header in any case.
//!
//! On the way two things are left out. Bodies that are larger than their channel takes: lapin would
//! hold each whole, and as many as the prefetch at a time. And what comes on a channel that the broker
//! has closed: lapin would end the connection over it, and so all other channels.

mod frame;
mod skip;
mod stream;

#[cfg(feature = "fuzzing")]
pub(crate) use frame::mend_header;
pub(super) use stream::Mended;
