//! One conversation of two users, however many ask at the same time.

use std::collections::BTreeSet;

use mmate_test_support::ServiceProcess;
use serde_json::{Value, json};

use super::scene::{Scene, name, open, page, token};

/// Both users ask, so many times in all and all at the same time, each time another server. Returns the conversations that
/// they were given, and how often one was made.
fn ask_at_once(
    servers: &[ServiceProcess],
    users: [&str; 2],
    times: usize,
) -> (BTreeSet<String>, usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let tokens = users.map(|user| token(&servers[0], user));
    let answers = runtime.block_on(async {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut asking = tokio::task::JoinSet::new();
        for time in 0..times {
            let url =
                format!("http://{}/api/conversations", servers[time % servers.len()].address());
            let request = client.post(url).bearer_auth(&tokens[time % 2]);
            let request = request.json(&json!({"with": users[(time + 1) % 2]}));
            asking.spawn(async move {
                let answer = request.send().await.unwrap();
                let status = answer.status();
                let body = answer.text().await.unwrap();
                assert_eq!(status, 200, "{body}");
                serde_json::from_str::<Value>(&body).unwrap()
            });
        }
        asking.join_all().await
    });
    assert_eq!(answers.len(), times);
    let made = answers.iter().filter(|answer| answer["created"] == true).count();
    let of = |answer: &Value| answer["conversation"].as_str().unwrap().to_owned();
    (answers.iter().map(of).collect(), made)
}

fn is_made_once(scene: &Scene, times: usize) {
    let servers = [scene.server("one"), scene.server("two"), scene.server("three")];
    let (anna, bert) = (name("anna"), name("bert"));
    let (conversations, made) = ask_at_once(&servers, [&anna, &bert], times);
    assert_eq!((conversations.len(), made), (1, 1));
    for user in [&anna, &bert] {
        let found = page(&servers[2], "/api/conversations", user);
        let found = found.as_array().unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0]["members"], json!([&anna, &bert]));
        assert!(conversations.contains(found[0]["conversation"].as_str().unwrap()));
    }
    // Over a socket it is the same.
    let client = scene.client(&[&servers[1]], &bert);
    assert!(conversations.contains(&open(&client, &anna)));
}

/// S1
#[test]
fn of_150_who_ask_at_once_one_makes_the_conversation_on_files() {
    is_made_once(&Scene::new(&[]), 150);
}

/// S1
#[test]
fn of_5_000_who_ask_at_once_one_makes_the_conversation_on_postgresql_and_redis() {
    is_made_once(&Scene::on_postgresql_and_redis(&[]), 5_000);
}

/// S1
#[test]
fn of_5_000_who_ask_at_once_one_makes_the_conversation_on_mariadb() {
    is_made_once(&Scene::on_mariadb(&[]), 5_000);
}

#[test]
fn what_cannot_be_a_conversation_is_told() {
    let scene = Scene::new(&[]);
    let server = scene.server("server");
    let signed_in = format!("Bearer {}", token(&server, "anna"));
    let ask = |authorization: &str, body: &Value| {
        let headers = [("Authorization", authorization), ("Content-Type", "application/json")];
        server.ask("POST /api/conversations", &headers, &body.to_string()).unwrap()
    };
    assert_eq!(ask("Bearer anna", &json!({"with": "bert"})).status, 401);
    assert_eq!(ask(&signed_in, &json!({"with": "anna"})).status, 400);
    let answer = ask(&signed_in, &json!({"with": "Bert!"}));
    assert_eq!(answer.status, 422);
    assert!(answer.body.contains("a name has 1 to 32"), "{answer:?}");

    let client = scene.client(&[&server], "anna");
    for (with, reason) in [("anna", "somebody else"), ("Bert!", "a name has 1 to 32")] {
        let answer = client.ask("open", &json!({"with": with}));
        assert!(answer["error"].as_str().unwrap().contains(reason), "{answer}");
    }
}
