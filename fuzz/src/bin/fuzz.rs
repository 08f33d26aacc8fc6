//! One target under libFuzzer, built by `scripts/fuzz`: `FUZZ_TARGET=NAME fuzz CORPUS [-OPTION=VALUE…]`.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod libfuzzer {
    use std::sync::LazyLock;

    use libfuzzer_sys::fuzz_target;
    use mmate_fuzz::{TARGETS, Target};

    static TARGET: LazyLock<&Target> = LazyLock::new(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        let found = TARGETS.iter().find(|target| target.name == name);
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        found.unwrap_or_else(|| {
            panic!("FUZZ_TARGET is {name:?}, and not one of {}", names.join(", "))
        })
    });

    fuzz_target!(|input: &[u8]| (TARGET.read)(input));
}

#[cfg(not(fuzzing))]
fn main() {
    eprintln!("this was built without libFuzzer: run scripts/fuzz");
    std::process::exit(2);
}
