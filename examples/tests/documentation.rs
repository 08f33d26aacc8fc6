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

/// All metrics that the sources tell.
fn told(root: &Path) -> BTreeSet<String> {
    let mut texts = Vec::new();
    for package in ["mmate-core", "mmate-amqp", "mmate-idempotency"] {
        sources(&root.join(package).join("src"), &mut texts);
    }
    texts.iter().flat_map(|text| names(text, "&str = \"", "\"")).collect()
}

#[test]
fn every_metric_is_in_the_table_of_metrics_and_no_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let told = told(root);
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

/// All texts under this name, anywhere in a JSON document.
fn texts_of(name: &str, value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (field, value) in fields {
                match value.as_str() {
                    Some(text) if field == name => found.push(text.to_owned()),
                    _ => texts_of(name, value, found),
                }
            }
        }
        serde_json::Value::Array(values) => {
            values.iter().for_each(|value| texts_of(name, value, found));
        }
        _ => {}
    }
}

#[test]
fn the_dashboard_shows_every_metric_and_asks_for_no_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("docs/grafana/mmate.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut questions = Vec::new();
    texts_of("expr", &dashboard, &mut questions);
    texts_of("query", &dashboard, &mut questions);
    let word = |c: char| !(c.is_ascii_lowercase() || c == '_');
    let asked: BTreeSet<_> = questions
        .iter()
        .flat_map(|question| question.split(word))
        .filter(|word| word.starts_with("mmate_"))
        .map(|word| word.strip_suffix("_bucket").unwrap_or(word).to_owned())
        .collect();
    assert_eq!(asked, told(root));

    // Each label that is asked for is in the table of metrics.
    let page = fs::read_to_string(root.join("docs/operations.md")).unwrap();
    for question in &questions {
        for metric in question.split(word).filter(|word| word.starts_with("mmate_")) {
            let metric = metric.strip_suffix("_bucket").unwrap_or(metric);
            let row = page.lines().find(|line| line.starts_with(&format!("| `{metric}` ")));
            let labels = row.unwrap().split('|').nth(3).unwrap();
            let selected = question.split(metric).nth(1).and_then(|rest| {
                rest.trim_start_matches("_bucket").strip_prefix('{')?.split('}').next()
            });
            for selector in
                selected.unwrap_or_default().split(',').filter(|text| text.contains('='))
            {
                let label = selector.split(['=', '~']).next().unwrap();
                let is_there = labels.split(',').any(|known| known.trim() == label);
                assert!(is_there, "{metric} has no label {label}: {question}");
            }
        }
    }
}

/// The lines of a table that begin after this line.
fn table_after<'a>(page: &'a str, line: &str) -> Vec<&'a str> {
    let rows = page.lines().skip_while(|other| *other != line).skip(1);
    rows.skip_while(|row| !row.starts_with('|')).take_while(|row| row.starts_with('|')).collect()
}

/// The cells of a table's row.
fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').map(str::trim).collect()
}

/// What stands between backticks, first in a text.
fn code(text: &str) -> Option<&str> {
    text.split('`').nth(1)
}

/// Which cases there are, in their order.
fn cases(suite: &str) -> Vec<&str> {
    let list = suite.split("@tests $harness,").nth(1).unwrap();
    list.lines().filter_map(|line| line.trim().strip_suffix(',')).collect()
}

#[test]
fn the_page_of_conformance_has_every_case_and_every_store() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let read = |path| fs::read_to_string(root.join(path)).unwrap();
    let (page, suite) =
        (read("docs/conformance.md"), read("mmate-idempotency/src/conformance/mod.rs"));
    let matrix = table_after(&page, "## Cases");
    let (head, rows) = (cells(matrix[0]), &matrix[2..matrix.len() - 1]);
    let shown: Vec<_> = rows.iter().filter_map(|row| code(row)).collect();
    let cases = cases(&suite);
    assert!(cases.len() > 50, "{cases:?}");
    assert_eq!(shown, cases, "run scripts/conformance");
    for row in rows.iter().map(|row| cells(row)).filter(|row| code(row[0]).is_some()) {
        assert_eq!(row.len(), head.len(), "{}", row[0]);
        assert!(row[2..].iter().all(|cell| *cell == "✓"), "{row:?}");
    }

    // Each use of the suite is a column, and each kind of store has had the long race.
    let mut tests = Vec::new();
    sources(&root.join("mmate-idempotency/tests"), &mut tests);
    let uses = "mmate_idempotency::store_conformance!(";
    let uses: usize = tests.iter().map(|text| text.matches(uses).count()).sum();
    assert_eq!(uses, head.len() - 2, "a store is missing in scripts/conformance");
    let names = |line| -> Vec<_> {
        table_after(&page, line)[2..].iter().map(|row| cells(row)[0]).collect()
    };
    assert_eq!(names("# Conformance of the stores"), head[2..]);
    let stores: Vec<_> = head[2..].iter().copied().filter(|name| !name.contains(", ")).collect();
    assert_eq!(names("## Fifty claimers, ten thousand rounds"), stores);
}
