//! Conversations from before, of which the same two users have several.

use std::process::Output;

use serde_json::json;

use super::scene::{Scene, numbers, page, say, texts};
use crate::files;

/// As a service would have left it that looked first and then made one.
const BEFORE: &str = "
CREATE TABLE conversations (
    id VARCHAR(64) PRIMARY KEY, participants VARCHAR(65), title VARCHAR(100), created_at_ms BIGINT NOT NULL
);
CREATE TABLE messages (
    conversation VARCHAR(64) NOT NULL, number BIGINT NOT NULL,
    sender VARCHAR(32) NOT NULL, message_id VARCHAR(200) NOT NULL,
    kind VARCHAR(8) NOT NULL, said TEXT NOT NULL, sent_at_ms BIGINT NOT NULL,
    PRIMARY KEY (conversation, number), UNIQUE (sender, message_id)
);
INSERT INTO conversations VALUES
    ('first', 'bert:anna', NULL, 10), ('second', 'anna:bert', NULL, 20), ('third', 'anna:bert', NULL, 30),
    ('other', 'anna:carl', NULL, 15), ('group', NULL, 'anna, bert', 16);
INSERT INTO messages VALUES
    ('first', 1, 'anna', 'a', 'text', 'one', 100), ('first', 2, 'bert', 'b', 'text', 'two', 200),
    ('second', 1, 'anna', 'c', 'text', 'four', 400), ('second', 2, 'bert', 'd', 'text', 'three', 300),
    ('third', 1, 'bert', 'e', 'text', 'five', 500), ('other', 1, 'carl', 'f', 'text', 'hi', 100);
";

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

#[test]
fn a_tool_makes_one_conversation_of_several_and_reports_them() {
    let scene = Scene::new(&[]);
    files::execute(&scene.folder.path().join("chat.db"), BEFORE);
    // A server would make it worse, and says what to do.
    let refused = scene.command(&["serve", "--listen", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains("`chat merge --database URL` makes one"), "{}", said(&refused));

    let merged = scene.command(&["merge"]).output().unwrap();
    assert!(merged.status.success(), "{}", said(&merged));
    let report = String::from_utf8_lossy(&merged.stdout);
    assert_eq!(
        report,
        "anna:bert: first has 3 messages more, of second, third\nmerged 2 conversations\n"
    );
    // It can be run again.
    let merged = scene.command(&["merge"]).output().unwrap();
    assert_eq!(said(&merged), "merged 0 conversations\n");

    let server = scene.server("server");
    let anna = scene.client(&[&server], "anna");
    assert_eq!(super::scene::open(&anna, "bert"), "first");
    assert_eq!(page(&server, "/api/conversations", "bert").as_array().unwrap().len(), 1);
    assert_eq!(say(&anna, "first", "m-1"), 6);
    let bert = scene.client_after(&[&server], "bert", &json!({"first": 2}));
    let shown = bert.receives(4);
    assert_eq!(numbers(&shown), [3, 4, 5, 6]);
    assert_eq!(texts(&shown), ["three", "four", "five", "m-1"]);
}

#[test]
fn a_database_that_is_none_or_away_is_told() {
    let scene = Scene::new(&[]);
    let away = scene.command(&["merge", "--database", "postgres://127.0.0.1:1/chat"]).output();
    let away = away.unwrap();
    assert_eq!(away.status.code(), Some(2));
    let told = said(&away);
    assert!(told.contains("cannot use the database") && told.contains("refused"), "{told}");
    let refused = scene.command(&["merge", "--database", "chat.db"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(said(&refused).contains("a database is sqlite:FILE, postgres://… or mysql://…"));
}
