use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Waits until the condition holds.
pub(crate) fn until(condition: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(120), "not within two minutes: {condition}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// What a server that has just been dropped left of itself must be nothing.
pub(crate) fn assert_nothing_is_left(folder: &Path) {
    assert_eq!(processes(folder), Vec::<String>::new());
    assert!(!folder.exists(), "{} is still there", folder.display());
}

/// The processes that work in the folder, or whose command line or environment names it.
pub(crate) fn processes(folder: &Path) -> Vec<String> {
    let numbered = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().parse::<u32>().is_ok())
    };
    let paths = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    paths.filter(numbered).filter_map(|process| describe(&process, folder)).collect()
}

fn describe(process: &Path, folder: &Path) -> Option<String> {
    let read = |name| fs::read(process.join(name)).unwrap_or_default();
    let text = |name| String::from_utf8_lossy(&read(name)).replace('\0', " ");
    let works_in = fs::read_link(process.join("cwd")).unwrap_or_default();
    let needle = folder.to_string_lossy();
    let related = [works_in.to_string_lossy().into_owned(), text("environ"), text("cmdline")]
        .iter()
        .any(|text| text.contains(&*needle));
    related.then(|| format!("{}: {}", process.display(), text("cmdline")))
}
