//! How fast the machine is at the moment.

use std::hint::black_box;
use std::thread;
use std::time::Instant;

/// How long all cores take for the same computation as ever, in milliseconds: more while somebody else uses the machine. A figure that is slow together with it says nothing about the contender.
pub(crate) fn milliseconds() -> f64 {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let begin = Instant::now();
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(compute);
        }
    });
    begin.elapsed().as_secs_f64() * 1e3
}

/// Each step needs the one before it.
fn compute() {
    let mut state = black_box(0x9e37_79b9_7f4a_7c15_u64);
    for _ in 0..STEPS {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    black_box(state);
}

const STEPS: u32 = 10_000_000;
