//! Passing bytes on.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Direction, Fate, Frame, Network};

/// What was read, when, and whether the connection ends with it.
struct Parcel {
    bytes: Vec<u8>,
    read_at: Instant,
    is_last: bool,
}

/// What is on its way at a time, in parcels, before no more is read.
const ON_ITS_WAY: usize = 64;

/// Passes frames on, each as the network wants it, until one side ends.
pub(super) async fn pass(
    from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    direction: Direction,
    network: &Network,
) {
    let (send, receive) = mpsc::channel(ON_ITS_WAY);
    tokio::join!(read(from, send, direction, network), write(to, receive, direction, network));
}

async fn read(
    mut from: impl AsyncRead + Unpin,
    parcels: mpsc::Sender<Parcel>,
    direction: Direction,
    network: &Network,
) {
    let mut pending = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let ending = parcels.closed();
        let count = tokio::select! {
            count = from.read(&mut buffer) => count.unwrap_or(0),
            () = ending => return,
        };
        if count == 0 {
            return;
        }
        pending.extend_from_slice(&buffer[..count]);
        let (mut bytes, mut is_last) = (Vec::new(), false);
        let mut rest = &pending[..];
        while let (Some((frame, after)), false) = (Frame::split(rest), is_last) {
            match network.fate(direction, &frame) {
                Fate::Pass => bytes.extend_from_slice(frame.bytes()),
                Fate::Drop => {}
                Fate::Replace(other) => bytes.extend_from_slice(&other),
                Fate::CutInside => {
                    bytes.extend_from_slice(&frame.bytes()[..frame.bytes().len() / 2]);
                    is_last = true;
                }
            }
            rest = after;
        }
        let done = pending.len() - rest.len();
        pending.drain(..done);
        let parcel = Parcel { bytes, read_at: Instant::now(), is_last };
        if parcels.send(parcel).await.is_err() || is_last {
            return;
        }
    }
}

/// What a segment holds of a stream, and when one that got lost is sent again first (RFC 6298 has a second; Linux this).
const SEGMENT: usize = 1460;
const SENT_AGAIN_AFTER: Duration = Duration::from_millis(200);

async fn write(
    mut to: impl AsyncWrite + Unpin,
    mut parcels: mpsc::Receiver<Parcel>,
    direction: Direction,
    network: &Network,
) {
    let mut holds = network.holds(direction).subscribe();
    while let Some(Parcel { bytes, read_at, is_last }) = parcels.recv().await {
        let weather = *network.weather.borrow();
        tokio::time::sleep_until(read_at + weather.latency).await;
        let is_fine = weather.bytes_per_second == 0 && weather.loss == 0.0;
        for segment in bytes.chunks(if is_fine { bytes.len().max(1) } else { SEGMENT }) {
            if weather.bytes_per_second > 0 {
                let seconds = segment.len() as f64 / f64::from(weather.bytes_per_second);
                tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            }
            let mut wait = SENT_AGAIN_AFTER;
            while fastrand::f64() < weather.loss {
                tokio::time::sleep(wait).await;
                wait *= 2;
            }
            if holds.wait_for(|holds| !holds).await.is_err() || to.write_all(segment).await.is_err()
            {
                return;
            }
        }
        if is_last {
            return;
        }
    }
}
