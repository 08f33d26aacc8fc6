//! What lapin is not to see: bodies that are too large to be held, and what comes too late.

use std::collections::{HashMap, HashSet};

use super::frame::{BASIC, DELIVER, HEADER, METHOD};
use crate::link::intake::Intake;

/// Tells which bodies are left out. A delivery is a method, a header that says how long the body is,
/// and the body in frames, on one channel with nothing of that channel between (AMQP 0-9-1, 4.2.6).
#[derive(Debug)]
pub(super) struct Skip {
    intake: Intake,
    /// The tags of the deliveries whose headers come next, by channel.
    announced: HashMap<u16, u64>,
    /// How much of bodies is still to be left out, by channel.
    left: HashMap<u16, u64>,
    /// The channels that the broker has closed. Deliveries and confirms may be on their way on one
    /// even then (RabbitMQ has a process for each side of a channel), and lapin 4.12 gives its
    /// connection up over them, with all the other channels.
    closed: HashSet<u16>,
}

/// In a header: a class and a weight are before the size of the body.
const SIZE: std::ops::Range<usize> = 4..12;

impl Skip {
    pub(super) fn new(intake: Intake) -> Self {
        Self { intake, announced: HashMap::new(), left: HashMap::new(), closed: HashSet::new() }
    }

    /// Looks at a method or a header. One whose body is left out says afterwards that it has none.
    pub(super) fn look(&mut self, frame_type: u8, channel: u16, payload: &mut [u8]) {
        if frame_type == METHOD {
            match method(payload) {
                Some((CHANNEL, CLOSE)) => drop(self.closed.insert(channel)),
                Some((CHANNEL, OPEN_OK)) => drop(self.closed.remove(&channel)),
                _ => {}
            }
            // Whatever else comes on the channel, a body that was on its way will not.
            self.left.remove(&channel);
            match tag_of_delivery(payload) {
                Some(tag) => drop(self.announced.insert(channel, tag)),
                None => drop(self.announced.remove(&channel)),
            }
        } else if frame_type == HEADER
            && let Some(tag) = self.announced.remove(&channel)
            && let Some(size) = payload.get_mut(SIZE)
        {
            let bytes = size.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
            if self.intake.leaves_out(channel, tag, bytes) {
                size.fill(0);
                self.left.insert(channel, bytes);
            }
        }
    }

    /// Whether a frame comes too late, after the end of its channel. Of a method all must be there.
    pub(super) fn is_late(&self, frame_type: u8, channel: u16, payload: &[u8]) -> bool {
        // What opens and closes channels is never late.
        let is_of_channel =
            || frame_type == METHOD && method(payload).is_some_and(|m| m.0 == CHANNEL);
        !self.closed.is_empty() && self.closed.contains(&channel) && !is_of_channel()
    }

    /// Whether a frame of a body, with so many bytes, is left out.
    pub(super) fn is_left_out(&mut self, channel: u16, bytes: u32) -> bool {
        let Some(left) = self.left.get_mut(&channel) else { return false };
        *left = left.saturating_sub(bytes.into());
        if *left == 0 {
            self.left.remove(&channel);
        }
        true
    }
}

/// The class `channel`, and its methods that begin and end a channel.
const CHANNEL: u16 = 20;
const OPEN_OK: u16 = 11;
const CLOSE: u16 = 40;

/// The class and the method.
fn method(payload: &[u8]) -> Option<(u16, u16)> {
    let [a, b, c, d] = *payload.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// Class, method, consumer tag; the delivery tag.
fn tag_of_delivery(payload: &[u8]) -> Option<u64> {
    if method(payload)? != (BASIC, DELIVER) {
        return None;
    }
    let (length, rest) = payload[4..].split_first()?;
    let tag = rest.get(usize::from(*length)..)?.get(..8)?;
    Some(u64::from_be_bytes(tag.try_into().ok()?))
}
