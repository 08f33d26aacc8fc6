//! The wrong call does not compile, and the compiler says why in the terms of this crate.
//!
//! Each file in `compile_fail/` is compiled as a program of its own, must fail, and must be told
//! what its `//! expect:` lines say. Whole compiler messages are not compared: they change with
//! every compiler.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

#[test]
fn wrong_calls_do_not_compile_and_are_told_why() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let project = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compile_fail");
    let programs = lay_out(here, &project);
    assert!(programs.len() >= 5, "the cases are in {}", here.display());

    let told = compile(&project);
    for (name, source) in &programs {
        let told = told.get(name).unwrap_or_else(|| panic!("{name} compiled, and should not"));
        let mut expected = source.lines().filter_map(|line| line.strip_prefix("//! expect: "));
        assert!(expected.clone().count() > 0, "{name} expects nothing");
        if let Some(missing) = expected.find(|phrase| !told.contains(phrase)) {
            panic!("{name} was not told {missing:?}, but:\n{told}");
        }
    }
}

/// Makes a package with one program for each case, and returns their sources by name.
fn lay_out(here: &Path, project: &Path) -> BTreeMap<String, String> {
    let bin = project.join("src/bin");
    let _ = fs::remove_dir_all(&bin);
    fs::create_dir_all(&bin).unwrap();
    let manifest = format!(
        "[package]\nname = \"compile-fail\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n\
         async-trait = \"0.1\"\nmmate-core = {{ path = {:?} }}\n",
        here.to_str().unwrap()
    );
    fs::write(project.join("Cargo.toml"), manifest).unwrap();
    fs::copy(here.join("../Cargo.lock"), project.join("Cargo.lock")).unwrap();

    let mut programs = BTreeMap::new();
    for entry in fs::read_dir(here.join("tests/compile_fail")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        fs::copy(&path, bin.join(path.file_name().unwrap())).unwrap();
        programs.insert(name, fs::read_to_string(path).unwrap());
    }
    programs
}

/// What the compiler says of each program that it refuses.
fn compile(project: &Path) -> BTreeMap<String, String> {
    let output = Command::new(env!("CARGO"))
        .args(["check", "--bins", "--keep-going", "--offline", "--message-format=json"])
        .current_dir(project)
        .env("CARGO_TARGET_DIR", project.join("target"))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let mut told = BTreeMap::<String, String>::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let message: Value = serde_json::from_str(line).unwrap();
        if message["message"]["level"] == "error" {
            let name = message["target"]["name"].as_str().unwrap().to_owned();
            *told.entry(name).or_default() += message["message"]["rendered"].as_str().unwrap();
        }
    }
    told
}
