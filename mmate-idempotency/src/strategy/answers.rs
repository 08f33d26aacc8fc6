//! Answers to requests, as a record keeps them for copies of the request.

use bytes::{BufMut, Bytes, BytesMut};
use mmate_core::{Answer, Context, Outcome};

use crate::metrics::Meters;

/// What the record of a message keeps of its outcome: the answer, if somebody waits for one.
pub(super) fn kept(
    outcome: &Outcome,
    context: &Context,
    limit: usize,
    meters: &Meters,
) -> Option<Bytes> {
    let Outcome::Answered(answer) = outcome else { return None };
    if limit == 0 || !matches!(context.reply_address(), Ok(Some(_))) {
        return None;
    }
    let bytes = answer.payload().len();
    if bytes > limit {
        meters.reply_not_kept.increment(1);
        tracing::warn!(
            message_id = context.message_id().map(tracing::field::display),
            message_type = context.message_type(),
            bytes,
            limit,
            "an answer is too large to be kept: copies of its request will not be answered; see \
             reply_limit(…)"
        );
        return None;
    }
    Some(written(answer.is_success(), answer.payload()))
}

/// The answer that a record has kept.
pub(super) fn answer(kept: &Bytes) -> Option<Answer> {
    let (success, payload) = read(kept)?;
    Some(Answer::kept(success, payload))
}

/// One byte that tells what it is, and the payload as it is: who looks at the table can read it.
pub(crate) fn written(success: bool, payload: &[u8]) -> Bytes {
    let mut kept = BytesMut::with_capacity(payload.len() + 1);
    kept.put_u8(if success { SUCCESS } else { FAILURE });
    kept.put_slice(payload);
    kept.freeze()
}

/// Whether it is one of success, and the payload.
pub(crate) fn read(kept: &Bytes) -> Option<(bool, Bytes)> {
    match *kept.first()? {
        SUCCESS => Some((true, kept.slice(1..))),
        FAILURE => Some((false, kept.slice(1..))),
        _ => None,
    }
}

const SUCCESS: u8 = b'+';
const FAILURE: u8 = b'-';

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else_is() {
        for (success, payload) in [(true, &b"{\"a\":1}"[..]), (false, b""), (true, b"+")] {
            let kept = written(success, payload);
            assert_eq!(read(&kept), Some((success, Bytes::copy_from_slice(payload))));
        }
        assert_eq!(read(&Bytes::new()), None);
        assert_eq!(read(&Bytes::from_static(b"{}")), None);
    }
}
