//! Faults by chance, and faults on demand.

/// What goes wrong by chance at an [`InProcess`](crate::InProcess) broker. Nothing, unless set.
///
/// The same seed and the same sequence of publishing and settling give the same faults.
///
/// ```
/// use mmate_core::{Chaos, InProcess};
/// let broker = InProcess::new();
/// broker.chaos(Chaos::new().duplicates(0.05).dropped_acks(0.05).seed(7));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[must_use = "chaos does nothing until a broker has it"]
pub struct Chaos {
    duplicates: f64,
    dropped_acks: f64,
    seed: u64,
}

impl Chaos {
    /// Nothing goes wrong.
    pub fn new() -> Self {
        Self::default()
    }

    /// By this chance, from 0 to 1, a published message is put into its queues a second time.
    pub fn duplicates(mut self, chance: f64) -> Self {
        self.duplicates = chance;
        self
    }

    /// By this chance, from 0 to 1, an acknowledgement gets lost, and its message is shown again.
    /// With 1 no message ever leaves its queue.
    pub fn dropped_acks(mut self, chance: f64) -> Self {
        self.dropped_acks = chance;
        self
    }

    /// What the chances are drawn from; 0 by default.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }
}

/// What shall go wrong next.
#[derive(Debug)]
pub(super) struct Faults {
    chaos: Chaos,
    random: fastrand::Rng,
    duplicates: usize,
    acks: usize,
    confirms: usize,
}

impl Default for Faults {
    fn default() -> Self {
        let chaos = Chaos::new();
        let random = fastrand::Rng::with_seed(chaos.seed);
        Self { chaos, random, duplicates: 0, acks: 0, confirms: 0 }
    }
}

impl Faults {
    pub(super) fn set(&mut self, chaos: Chaos) {
        self.random = fastrand::Rng::with_seed(chaos.seed);
        self.chaos = chaos;
    }

    pub(super) fn duplicate_next(&mut self, count: usize) {
        self.duplicates = count;
    }

    pub(super) fn drop_next_acks(&mut self, count: usize) {
        self.acks = count;
    }

    pub(super) fn drop_next_confirms(&mut self, count: usize) {
        self.confirms = count;
    }

    /// Whether the message that is being published comes twice.
    pub(super) fn duplicate(&mut self) -> bool {
        take(&mut self.duplicates) || self.random.f64() < self.chaos.duplicates
    }

    /// Whether the acknowledgement that is being made gets lost.
    pub(super) fn drop_ack(&mut self) -> bool {
        take(&mut self.acks) || self.random.f64() < self.chaos.dropped_acks
    }

    /// Whether the confirmation that is being made gets lost.
    pub(super) fn drop_confirm(&mut self) -> bool {
        take(&mut self.confirms)
    }
}

fn take(left: &mut usize) -> bool {
    let some = *left > 0;
    *left -= usize::from(some);
    some
}
