//! Every target gets its kept inputs, and changed ones.

use std::fs;
use std::panic::catch_unwind;

use mmate_fuzz::{Mutator, TARGETS, Target, corpus};

/// So many changed inputs for each target; `MMATE_TEST_LONG` asks for more.
const CHANGED: usize = 3_000;

/// F2, F3: whatever a stranger sends is read, or refused; nothing panics, and nothing is lost.
#[test]
fn every_kept_input_and_changed_ones_are_read() {
    let changed =
        if std::env::var_os("MMATE_TEST_LONG").is_some() { 50 * CHANGED } else { CHANGED };
    for target in TARGETS {
        let folder = corpus(target);
        let entries = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("no inputs are kept in {}: {error}", folder.display()));
        let mut kept = Vec::new();
        for entry in entries {
            let path = entry.unwrap().path();
            let input = fs::read(&path).unwrap();
            read(target, &input, || path.display().to_string());
            kept.push(input);
        }
        assert!(kept.len() > 10, "{} inputs are kept in {}", kept.len(), folder.display());
        kept.sort();
        let seed = fastrand::u64(..);
        let mut mutator = Mutator::new(seed, kept);
        for number in 0..changed {
            let input = mutator.make();
            read(target, &input, || format!("input {number} of seed {seed}"));
        }
    }
}

/// What panics is told with its input, to be kept.
fn read(target: &Target, input: &[u8], whence: impl Fn() -> String) {
    if catch_unwind(|| (target.read)(input)).is_err() {
        let (name, text) = (target.name, String::from_utf8_lossy(input));
        panic!("{name} panics at {}: {input:02x?}, as text {text:?}", whence());
    }
}
