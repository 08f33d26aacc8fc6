//! The documentation, held against the sources.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// All texts of files below a folder.
fn sources(folder: &Path, texts: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, texts);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            texts.push(fs::read_to_string(path).unwrap());
        }
    }
}

/// The names of metrics between these marks.
fn names(text: &str, begin: &str, end: &str) -> BTreeSet<String> {
    let is_name = |name: &&str| {
        name.starts_with("mmate_") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    };
    let rest = text.split(begin).skip(1).filter_map(|rest| rest.split(end).next());
    rest.filter(is_name).map(str::to_owned).collect()
}

#[test]
fn every_metric_is_in_the_table_of_metrics_and_no_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut texts = Vec::new();
    for package in ["mmate-core", "mmate-amqp", "mmate-idempotency"] {
        sources(&root.join(package).join("src"), &mut texts);
    }
    let told: BTreeSet<_> = texts.iter().flat_map(|text| names(text, "&str = \"", "\"")).collect();
    let page = fs::read_to_string(root.join("docs/operations.md")).unwrap();
    let documented = names(&page, "\n| `", "` | ");
    assert!(told.len() > 20, "{told:?}");
    assert_eq!(told, documented);
}

#[test]
fn every_link_between_the_pages_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut pages = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    for folder in ["docs", "docs/examples"] {
        let entries = fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        pages.extend(entries.filter(|path| path.extension().is_some_and(|e| e == "md")));
    }
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let there = page.parent().unwrap().join(file);
            assert!(there.exists(), "{} links to {file}, which is not there", page.display());
        }
    }
}
