//! Of three servers one after another dies under load, or the broker.

use std::thread;
use std::time::Duration;

use mmate_test_support::{ServiceProcess, until};
use serde_json::Value;

use super::scene::{Scene, numbers, open, text};
use crate::clients::Client;

const USERS: [&str; 6] = ["anna", "bert", "carl", "dora", "emil", "fine"];

/// How much each user says, and how often a server or the broker is killed meanwhile.
#[derive(Clone, Copy)]
struct Load {
    each: usize,
    kills: usize,
    broker_kills: usize,
}

impl Load {
    /// A little, or much for whoever wants to wait.
    fn with_kills(kills: usize, broker_kills: usize) -> Self {
        let times = if std::env::var_os("MMATE_TEST_LONG").is_some() { 10 } else { 1 };
        Self { each: 60 * times, kills: kills * times, broker_kills: broker_kills * times }
    }
}

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

fn nothing_is_lost_doubled_or_out_of_order(mut scene: Scene, load: Load) {
    let Load { each, kills, broker_kills } = load;
    let mut all = (0..3).map(|number| server(&scene, number, "127.0.0.1:0")).collect::<Vec<_>>();
    let clients = USERS.iter().enumerate().map(|(number, name)| {
        let servers = [0, 1, 2].map(|offset| &all[(number + offset) % 3]);
        scene.client(&servers, name)
    });
    let clients = clients.collect::<Vec<_>>();
    // Three conversations: of each both talk.
    let pairs = [(0, 1), (2, 3), (4, 5)];
    let conversations = pairs.map(|(first, second)| open(&clients[first], USERS[second]));
    thread::scope(|scope| {
        for ((first, second), conversation) in pairs.iter().zip(&conversations) {
            for (offset, user) in [(0, first), (each, second)] {
                let client = &clients[*user];
                scope.spawn(move || {
                    for number in offset..offset + each {
                        say_until_it_is_said(client, conversation, number);
                    }
                });
            }
        }
        let said = || clients.iter().map(|client| client.received().len()).sum::<usize>();
        let in_all = USERS.len() * each * 2;
        for kill in 0..kills + broker_kills {
            let due = (kill + 1) * in_all / (kills + broker_kills + 2);
            until("some more of it", || said() > due);
            if kill % (kills + broker_kills) < kills {
                // It is started again where it was, so that the next one is not missed for it.
                let victim = (kill + 1) % 3;
                let address = all[victim].address().to_owned();
                all.remove(victim).kill();
                all.insert(victim, server(&scene, victim, &address));
            } else {
                scene.broker.kill();
                scene.broker.start_again().unwrap();
            }
        }
    });
    for ((first, second), conversation) in pairs.iter().zip(&conversations) {
        let of_first = clients[*first].receives(2 * each);
        assert_eq!(numbers(&of_first), (1..=2 * each as i64).collect::<Vec<_>>(), "{conversation}");
        assert_eq!(clients[*second].receives(2 * each), of_first, "{conversation}");
        for offset in [0, each] {
            let own = |message: &&Value| {
                let number = message["said"].as_str().unwrap().parse::<usize>().unwrap();
                (offset..offset + each).contains(&number)
            };
            let said = of_first.iter().filter(own).map(|message| message["said"].as_str().unwrap());
            let expected = (offset..offset + each).map(|number| number.to_string());
            assert!(said.eq(expected), "in the order in which they were said");
        }
    }
    // What would come twice comes now.
    thread::sleep(Duration::from_secs(1));
    for client in &clients {
        assert_eq!(client.received().len(), 2 * each);
    }
}

fn server(scene: &Scene, number: usize, address: &str) -> ServiceProcess {
    scene.server_with(&format!("server-{number}"), &["--listen", address])
}

/// S12, S14, S24: on files.
#[test]
fn servers_die_and_nobody_loses_or_doubles_a_message_on_files() {
    let scene = Scene::new(&["--lease", "2000"]);
    nothing_is_lost_doubled_or_out_of_order(scene, Load::with_kills(3, 0));
}

/// S12, S14, S24
#[test]
fn servers_die_and_nobody_loses_or_doubles_a_message_on_postgresql_and_redis() {
    let scene = Scene::on_postgresql_and_redis(&["--lease", "2000"]);
    nothing_is_lost_doubled_or_out_of_order(scene, Load::with_kills(3, 0));
}

/// S24, F16
#[test]
fn the_broker_dies_and_nobody_loses_or_doubles_a_message() {
    let scene = Scene::on_postgresql_and_redis(&["--lease", "2000"]);
    nothing_is_lost_doubled_or_out_of_order(scene, Load::with_kills(0, 1));
}
