//! A stream that is mended frame by frame.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::io::{AsyncRead, AsyncWrite, IoSlice};

use super::frame::{BODY, HEADER, METHOD, Mends, mend};
use super::skip::Skip;
use crate::link::intake::Intake;

/// Reads from a stream of AMQP frames and mends what it hands on; writes as it is told.
#[derive(Debug)]
pub(in crate::link) struct Mended<S> {
    stream: S,
    /// What was read; of it, `handed_on..ready` can be handed on, and `ready..read` not yet.
    buffer: Vec<u8>,
    handed_on: usize,
    ready: usize,
    read: usize,
    frames: Frames,
    intake: Intake,
    ended: bool,
}

impl<S> Mended<S> {
    pub(in crate::link) fn new(stream: S, intake: Intake) -> Self {
        Self {
            stream,
            buffer: vec![0; ROOM],
            handed_on: 0,
            ready: 0,
            read: 0,
            frames: Frames {
                passing: 0,
                leaving_out: 0,
                lost: false,
                skip: Skip::new(intake.clone()),
            },
            intake,
            ended: false,
        }
    }
}

/// More than a frame of RabbitMQ's default size.
const ROOM: usize = 160 * 1024;

impl<S: AsyncRead + Unpin> AsyncRead for Mended<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        target: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        while this.handed_on == this.ready && !this.ended {
            ready!(this.poll_fill(cx))?;
        }
        let there = &this.buffer[this.handed_on..this.ready];
        let count = there.len().min(target.len());
        target[..count].copy_from_slice(&there[..count]);
        this.handed_on += count;
        Poll::Ready(Ok(count))
    }
}

impl<S: AsyncRead + Unpin> Mended<S> {
    /// Reads on. All that was ready has been handed on.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.buffer.copy_within(self.ready..self.read, 0);
        self.read -= self.ready;
        (self.handed_on, self.ready) = (0, 0);
        if self.read == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        let room = &mut self.buffer[self.read..];
        let count = ready!(Pin::new(&mut self.stream).poll_read(cx, room))?;
        self.read += count;
        if count == 0 {
            // What is not a whole frame now never will be.
            self.ended = true;
            self.ready = self.read;
        } else {
            self.intake.read();
            (self.ready, self.read) = self.frames.mend(&mut self.buffer[..self.read]);
        }
        Poll::Ready(Ok(()))
    }
}

/// Where the frames begin and end.
#[derive(Debug)]
struct Frames {
    /// How much of a frame that is handed on in pieces is still to come.
    passing: usize,
    /// How much of a frame that is not handed on is still to come.
    leaving_out: usize,
    skip: Skip,
    /// The stream is not what we take it for, and is handed on as it comes.
    lost: bool,
}

/// A frame is a type, a channel, a length, the payload, and an end (AMQP 0-9-1, 2.3.5).
const BEFORE: usize = 7;
const AFTER: usize = 1;
const END: u8 = 0xCE;

/// No header or method is as long as this.
const TOO_LONG: usize = 16 * 1024 * 1024;

impl Frames {
    /// Mends what is whole of the bytes, and returns how many can be handed on, and how many are
    /// left in all.
    fn mend(&mut self, bytes: &mut [u8]) -> (usize, usize) {
        let (mut ready, mut end) = (0, bytes.len());
        while !self.lost {
            let left_out = self.leaving_out.min(end - ready);
            if left_out > 0 {
                self.leaving_out -= left_out;
                bytes.copy_within(ready + left_out..end, ready);
                end -= left_out;
            }
            let passed = self.passing.min(end - ready);
            self.passing -= passed;
            ready += passed;
            let frame = &mut bytes[ready..end];
            if frame.len() < BEFORE {
                return (ready, end);
            }
            let length = u32::from_be_bytes([frame[3], frame[4], frame[5], frame[6]]);
            let whole = BEFORE.saturating_add(length as usize).saturating_add(AFTER);
            let frame_type = frame[0];
            let channel = u16::from_be_bytes([frame[1], frame[2]]);
            if frame_type != METHOD && frame_type != HEADER {
                // Of a body, which may be long, nothing is to be seen.
                let is_body = frame_type == BODY;
                let is_late = is_body && self.skip.is_late(frame_type, channel, &[]);
                match is_late || is_body && self.skip.is_left_out(channel, length) {
                    true => self.leaving_out = whole,
                    false => self.passing = whole,
                }
            } else if whole > TOO_LONG {
                self.lost = true;
            } else if frame.len() < whole {
                return (ready, end);
            } else if frame[whole - 1] != END {
                self.lost = true;
            } else if self.skip.is_late(frame_type, channel, &frame[BEFORE..whole - AFTER]) {
                self.leaving_out = whole;
            } else {
                let payload = &mut frame[BEFORE..whole - AFTER];
                let mends = mend(frame_type, payload);
                self.skip.look(frame_type, channel, payload);
                tell(mends);
                ready += whole;
            }
        }
        (end, end)
    }
}

fn tell(Mends { bytes, too_deep }: Mends) {
    if bytes > 0 {
        tracing::warn!(
            bytes,
            "a message came with bytes that are not UTF-8 in an id, a routing key or a header's \
             name; they are replaced"
        );
    }
    if too_deep > 0 {
        tracing::warn!(
            too_deep,
            "a message came with headers of tables and arrays that are too deep within each other; \
             the innermost are passed over"
        );
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Mended<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::AsyncReadExt;
    use proptest::prelude::*;

    use super::*;

    fn frame(frame_type: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[frame_type, 0, 1][..], &length, payload, &[END]].concat()
    }

    /// A stream that gives its bytes in pieces of these sizes.
    struct InPieces {
        bytes: Vec<u8>,
        sizes: Vec<usize>,
    }

    impl AsyncRead for InPieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            target: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            let size = self.sizes.pop().unwrap_or(usize::MAX);
            let count = size.min(self.bytes.len()).min(target.len());
            let taken: Vec<u8> = self.bytes.drain(..count).collect();
            target[..count].copy_from_slice(&taken);
            Poll::Ready(Ok(count))
        }
    }

    async fn read(bytes: Vec<u8>, sizes: Vec<usize>) -> Vec<u8> {
        let mut mended = Mended::new(InPieces { bytes, sizes }, Intake::default());
        let mut got = Vec::new();
        mended.read_to_end(&mut got).await.unwrap();
        got
    }

    /// A header frame with this message id.
    fn with_id(id: &[u8]) -> Vec<u8> {
        let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0x00, 0x80];
        payload.push(u8::try_from(id.len()).unwrap());
        payload.extend_from_slice(id);
        frame(HEADER, &payload)
    }

    #[tokio::test]
    async fn what_is_no_amqp_is_handed_on_as_it_is() {
        let http = b"HTTP/1.1 400 Bad Request\r\n\r\n\xff\xfe".repeat(20);
        assert_eq!(read(http.clone(), vec![3; 50]).await, http);
        let mut no_end = with_id(b"\xff");
        *no_end.last_mut().unwrap() = 0;
        assert_eq!(read(no_end.clone(), vec![]).await, no_end);
        let too_long = [2, 0, 1, 0xff, 0xff, 0xff, 0xff, 1, 2, 3];
        assert_eq!(read(too_long.to_vec(), vec![]).await, too_long);
    }

    #[tokio::test]
    async fn a_frame_larger_than_the_buffer_is_mended_too() {
        let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0x20, 0x80];
        let table = [b"\x01kS".as_slice(), &400_000_u32.to_be_bytes(), &[7; 400_000]].concat();
        payload.extend_from_slice(&u32::try_from(table.len()).unwrap().to_be_bytes());
        payload.extend_from_slice(&table);
        payload.extend_from_slice(b"\x01\xff");
        let mut expected = frame(HEADER, &payload);
        let got = read(expected.clone(), vec![]).await;
        let id = expected.len() - 2;
        expected[id] = 0x1A;
        assert!(got == expected);
    }

    /// The frames of a delivery: the method, the header, and the body in frames of such a size.
    fn delivery(channel: u8, tag: u64, body: &[u8], frame_size: usize, says: usize) -> Vec<u8> {
        let method = [&[0, 60, 0, 60, 3][..], b"tag", &tag.to_be_bytes(), &[0, 1, b'e', 1, b'k']];
        let size = u64::try_from(says).unwrap().to_be_bytes();
        let header = [&[0, 60, 0, 0][..], &size, &[0, 0]].concat();
        let begin = [(METHOD, method.concat()), (HEADER, header)];
        let begin = begin.into_iter().flat_map(|(kind, it)| on_channel(channel, frame(kind, &it)));
        let bodies =
            body.chunks(frame_size).flat_map(|part| on_channel(channel, frame(BODY, part)));
        begin.chain(bodies).collect()
    }

    fn on_channel(channel: u8, mut frame: Vec<u8>) -> Vec<u8> {
        frame[2] = channel;
        frame
    }

    #[tokio::test]
    async fn what_comes_on_a_channel_that_the_broker_has_closed_is_left_out_until_it_is_open_again()
    {
        let close =
            |channel| on_channel(channel, frame(METHOD, &[0, 20, 0, 40, 1, 150, 0, 0, 0, 0, 0]));
        let close_ok = on_channel(1, frame(METHOD, &[0, 20, 0, 41]));
        let open_ok = on_channel(1, frame(METHOD, &[0, 20, 0, 11, 0, 0, 0, 0]));
        let delivered = |channel, tag| delivery(channel, tag, &[7; 500], 100, 500);
        let ack = on_channel(1, frame(METHOD, &[0, 60, 0, 80, 0, 0, 0, 0, 0, 0, 0, 1, 0]));
        let heartbeat = on_channel(0, frame(8, &[]));
        let before = [delivered(1, 1), close(1)].concat();
        let late = [delivered(1, 2), ack].concat();
        let others = [delivered(2, 1), heartbeat, close_ok].concat();
        let after = [open_ok, delivered(1, 1)].concat();
        let sent = [&before, &late, &others, &late, &after].map(Vec::as_slice).concat();
        let expected = [&before, &others, &after].map(Vec::as_slice).concat();
        for size in [1, 5, 64, 1_000, 100_000] {
            assert!(read(sent.clone(), vec![size; sent.len()]).await == expected, "in {size}");
        }
    }

    proptest! {
        #[test]
        fn however_the_stream_is_cut_only_bodies_above_their_channels_limit_are_left_out(
            bodies in proptest::collection::vec((1_u8..4, 0_usize..3_000), 1..20),
            frame_size in 1_usize..900,
            sizes in proptest::collection::vec(1_usize..700, 0..200),
        ) {
            let intake = Intake::default();
            intake.limit(1, Some(1_000));
            intake.limit(2, Some(2_000));
            let (mut sent, mut expected, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
            for (tag, (channel, bytes)) in (1..).zip(bodies) {
                let body = vec![7; bytes];
                sent.extend(delivery(channel, tag, &body, frame_size, bytes));
                if bytes > usize::from(channel) * 1_000 && channel < 3 {
                    left_out.push((u16::from(channel), tag, bytes));
                    expected.extend(delivery(channel, tag, &[], frame_size, 0));
                } else {
                    expected.extend(delivery(channel, tag, &body, frame_size, bytes));
                }
            }
            let mut mended = Mended::new(InPieces { bytes: sent, sizes }, intake.clone());
            let mut got = Vec::new();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(mended.read_to_end(&mut got)).unwrap();
            prop_assert!(got == expected);
            for (channel, tag, bytes) in left_out {
                prop_assert_eq!(intake.left_out(channel, tag), Some(bytes as u64));
            }
        }

        #[test]
        fn however_the_stream_is_cut_each_frame_is_mended_and_in_its_place(
            ids in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..20),
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 20),
            sizes in proptest::collection::vec(1_usize..200, 0..400),
        ) {
            let mut sent = Vec::new();
            let mut expected = Vec::new();
            for (id, body) in ids.iter().zip(&bodies) {
                let mended: Vec<u8> = id.utf8_chunks().flat_map(|chunk| {
                    let wrong = vec![0x1A; chunk.invalid().len()];
                    [chunk.valid().as_bytes(), &wrong].concat()
                }).collect();
                sent.extend([with_id(id), frame(3, body)].concat());
                expected.extend([with_id(&mended), frame(3, body)].concat());
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            prop_assert_eq!(runtime.block_on(read(sent, sizes)), expected);
        }
    }
}
