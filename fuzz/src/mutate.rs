//! Changed inputs, without guidance.

/// Makes new inputs of kept ones.
#[derive(Debug)]
pub struct Mutator {
    chance: fastrand::Rng,
    kept: Vec<Vec<u8>>,
}

/// What often makes a difference.
const TELLING: [&[u8]; 12] = [
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b".",
    b"#",
    b"*",
    b"\"",
    b"{",
    b"[",
    b",",
    "é\u{200d}".as_bytes(),
];

impl Mutator {
    /// The same seed gives the same inputs.
    #[must_use]
    pub fn new(seed: u64, kept: Vec<Vec<u8>>) -> Self {
        Self { chance: fastrand::Rng::with_seed(seed), kept }
    }

    /// Another input.
    pub fn make(&mut self) -> Vec<u8> {
        let mut input = self.any();
        for _ in 0..self.chance.usize(1..=4) {
            self.change(&mut input);
        }
        input
    }

    fn any(&mut self) -> Vec<u8> {
        self.chance.choice(&self.kept).cloned().unwrap_or_default()
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.chance.usize(..=input.len());
        match self.chance.u8(..7) {
            0 => input.truncate(at),
            1 if at < input.len() => input[at] ^= 1 << self.chance.u8(..8),
            2 if at < input.len() => input[at] = self.chance.u8(..),
            3 if at < input.len() => drop(input.remove(at)),
            4 => {
                let telling = TELLING[self.chance.usize(..TELLING.len())];
                input.splice(at..at, telling.iter().copied());
            }
            5 => {
                let end = self.chance.usize(at..=input.len());
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            _ => {
                let other = self.any();
                let from = self.chance.usize(..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }
}
