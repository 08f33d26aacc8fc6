//! A stream that is mended frame by frame.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::io::{AsyncRead, AsyncWrite, IoSlice};

use super::frame::{HEADER, METHOD, mend};

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
    ended: bool,
}

impl<S> Mended<S> {
    pub(in crate::link) fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: vec![0; ROOM],
            handed_on: 0,
            ready: 0,
            read: 0,
            frames: Frames::default(),
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
            self.ready = self.frames.mend(&mut self.buffer[..self.read]);
        }
        Poll::Ready(Ok(()))
    }
}

/// Where the frames begin and end.
#[derive(Debug, Default)]
struct Frames {
    /// How much of a frame that is handed on in pieces is still to come.
    passing: usize,
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
    /// Mends what is whole of the bytes, and returns how many can be handed on.
    fn mend(&mut self, bytes: &mut [u8]) -> usize {
        let mut ready = 0;
        while !self.lost {
            let passed = self.passing.min(bytes.len() - ready);
            self.passing -= passed;
            ready += passed;
            let frame = &mut bytes[ready..];
            if frame.len() < BEFORE {
                return ready;
            }
            let length = u32::from_be_bytes([frame[3], frame[4], frame[5], frame[6]]);
            let whole = BEFORE.saturating_add(length as usize).saturating_add(AFTER);
            let frame_type = frame[0];
            if frame_type != METHOD && frame_type != HEADER {
                // Of a body, which may be long, nothing is to be seen.
                self.passing = whole;
            } else if whole > TOO_LONG {
                self.lost = true;
            } else if frame.len() < whole {
                return ready;
            } else if frame[whole - 1] != END {
                self.lost = true;
            } else {
                let replaced = mend(frame_type, &mut frame[BEFORE..whole - AFTER]);
                if replaced > 0 {
                    tracing::warn!(
                        bytes = replaced,
                        "a message came with bytes that are not UTF-8 in an id, a routing key or \
                         a header's name; they are replaced"
                    );
                }
                ready += whole;
            }
        }
        bytes.len()
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
        let mut mended = Mended::new(InPieces { bytes, sizes });
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

    proptest! {
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
