//! Groups, and who is in them.

use serde_json::{Value, json};

use super::scene::{Scene, numbers, say, text};
use crate::clients::Client;

fn change(client: &Client, event: &str, conversation: &str, id: &str, name: &str) -> Value {
    client.ask(event, &json!({"conversation": conversation, "messageId": id, "name": name}))
}

#[test]
fn a_group_has_members_who_come_and_go_and_see_what_was_said_meanwhile() {
    let scene = Scene::new(&[]);
    let (one, two) = (scene.server("one"), scene.server("two"));
    let clients = ["anna", "bert", "carl"].map(|name| scene.client(&[&one], name));
    let [anna, bert, carl] = &clients;
    let dora = scene.client(&[&two], "dora");
    let group = json!({"messageId": "g-1", "title": "Friends", "members": ["bert", "carl"]});
    let made = anna.ask("group", &group);
    assert_eq!((&made["success"], &made["created"]), (&json!(true), &json!(true)), "{made}");
    let again = anna.ask("group", &group);
    assert_eq!((&again["conversation"], &again["created"]), (&made["conversation"], &json!(false)));
    let conversation = made["conversation"].as_str().unwrap();

    assert_eq!(say(anna, conversation, "m-1"), 2);
    let refused = change(&dora, "add", conversation, "c-0", "dora");
    assert!(refused["error"].as_str().unwrap().contains("not in this conversation"), "{refused}");
    let added = change(bert, "add", conversation, "c-1", "dora");
    assert_eq!(added["number"], 3, "{added}");
    let twice = change(bert, "add", conversation, "c-1", "dora");
    assert_eq!((&twice["number"], &twice["cached"]), (&json!(3), &json!(true)));
    let other = change(anna, "add", conversation, "c-2", "dora");
    assert!(other["error"].as_str().unwrap().contains("in the group already"), "{other}");
    assert_eq!(say(anna, conversation, "m-2"), 4);
    assert_eq!(change(anna, "remove", conversation, "c-3", "carl")["number"], 5);
    let refused = carl.ask("send", &text(conversation, "m-1", "still here?"));
    assert!(refused["error"].as_str().unwrap().contains("not in this conversation"), "{refused}");
    assert_eq!(say(&dora, conversation, "m-1"), 6);
    // Back again: not what was said meanwhile.
    assert_eq!(change(anna, "add", conversation, "c-4", "carl")["number"], 7);
    assert_eq!(say(anna, conversation, "m-3"), 8);

    assert_eq!(numbers(&anna.receives(8)), (1..=8).collect::<Vec<_>>());
    assert_eq!(numbers(&bert.receives(8)), (1..=8).collect::<Vec<_>>());
    assert_eq!(numbers(&carl.receives(7)), [1, 2, 3, 4, 5, 7, 8]);
    let of_dora = dora.receives(6);
    assert_eq!(numbers(&of_dora), [3, 4, 5, 6, 7, 8]);
    let kinds = of_dora.iter().map(|message| &message["kind"]).collect::<Vec<_>>();
    assert_eq!(kinds, ["added", "text", "removed", "text", "added", "text"]);

    let found = dora.ask("conversations", &json!({}));
    assert_eq!(found["conversations"][0]["title"], "Friends");
    assert_eq!(found["conversations"][0]["members"], json!(["anna", "bert", "carl", "dora"]));
    // Whoever comes later, from another server, sees the same.
    assert_eq!(scene.client(&[&two], "carl").receives(7), carl.received());
    // In a group one does not get contacts.
    assert_eq!(dora.ask("contacts", &json!({}))["contacts"], json!([]));
}

#[test]
fn what_is_no_group_is_told() {
    let scene = Scene::new(&[]);
    let server = scene.server("server");
    let anna = scene.client(&[&server], "anna");
    for (group, reason) in [
        (json!({"messageId": "g", "title": " ", "members": []}), "a title of 1 to 100 bytes"),
        (json!({"messageId": "g", "title": "a\0b", "members": []}), "a title of 1 to 100 bytes"),
        (json!({"messageId": "g", "title": "t", "members": ["Bert!"]}), "a name has 1 to 32"),
        (json!({"title": "t", "members": []}), "missing field"),
    ] {
        let answer = anna.ask("group", &group);
        assert!(
            answer["error"].as_str().unwrap().contains(reason),
            "{answer} is not about {reason}"
        );
    }
    anna.ask("group", &json!({"messageId": "g", "title": "t", "members": []}));
    let other = anna.ask("group", &json!({"messageId": "g", "title": "other", "members": []}));
    assert!(other["error"].as_str().unwrap().contains("used for another group"), "{other}");
    let direct = super::scene::open(&anna, "bert");
    let answer = change(&anna, "add", &direct, "c-1", "carl");
    assert!(answer["error"].as_str().unwrap().contains("make a group"), "{answer}");
}
