//! One of three servers dies under load.

use std::thread;
use std::time::Duration;

use mmate_test_support::until;
use serde_json::Value;

use super::scene::{Scene, numbers, open, text};
use crate::clients::Client;

const USERS: [&str; 6] = ["anna", "bert", "carl", "dora", "emil", "fine"];
const EACH: usize = 60;

/// As an application does: again with the same id, until it is said.
fn say_until_it_is_said(client: &Client, conversation: &str, number: usize) {
    let message = text(conversation, &format!("{conversation}-{number}"), &number.to_string());
    until("a message to be said", || {
        let answer = client.ask("send", &message);
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(error.is_empty() || error.contains("try again"), "{answer}");
        answer["success"] == true
    });
}

fn nothing_is_lost_doubled_or_out_of_order(scene: &Scene) {
    let (one, two, three) = (scene.server("one"), scene.server("two"), scene.server("three"));
    let all = [&one, &two, &three];
    let clients = USERS.iter().enumerate().map(|(number, name)| {
        let servers = [all[number % 3], all[(number + 1) % 3], all[(number + 2) % 3]];
        scene.client(&servers, name)
    });
    let clients = clients.collect::<Vec<_>>();
    // Three conversations: of each both talk.
    let pairs = [(0, 1), (2, 3), (4, 5)];
    let conversations = pairs.map(|(first, second)| open(&clients[first], USERS[second]));
    thread::scope(|scope| {
        for ((first, second), conversation) in pairs.iter().zip(&conversations) {
            for (offset, user) in [(0, first), (EACH, second)] {
                let client = &clients[*user];
                scope.spawn(move || {
                    for number in offset..offset + EACH {
                        say_until_it_is_said(client, conversation, number);
                    }
                });
            }
        }
        until("a third of it", || clients[0].received().len() > EACH * 2 / 3);
        two.kill();
    });
    for ((first, second), conversation) in pairs.iter().zip(&conversations) {
        let of_first = clients[*first].receives(2 * EACH);
        assert_eq!(numbers(&of_first), (1..=2 * EACH as i64).collect::<Vec<_>>(), "{conversation}");
        assert_eq!(clients[*second].receives(2 * EACH), of_first, "{conversation}");
        for offset in [0, EACH] {
            let own = |message: &&Value| {
                let number = message["said"].as_str().unwrap().parse::<usize>().unwrap();
                (offset..offset + EACH).contains(&number)
            };
            let said = of_first.iter().filter(own).map(|message| message["said"].as_str().unwrap());
            let expected = (offset..offset + EACH).map(|number| number.to_string());
            assert!(said.eq(expected), "in the order in which they were said");
        }
    }
    // What would come twice comes now.
    thread::sleep(Duration::from_secs(1));
    for client in &clients {
        assert_eq!(client.received().len(), 2 * EACH);
    }
}

/// S12, S14, S19: on files.
#[test]
fn a_server_dies_and_nobody_loses_or_doubles_a_message_on_files() {
    nothing_is_lost_doubled_or_out_of_order(&Scene::new(&["--lease", "2000"]));
}

/// S12, S14, S19
#[test]
fn a_server_dies_and_nobody_loses_or_doubles_a_message_on_postgresql_and_redis() {
    let scene = Scene::on_postgresql_and_redis(&["--lease", "2000"]);
    nothing_is_lost_doubled_or_out_of_order(&scene);
}
