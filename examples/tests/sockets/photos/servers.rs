//! Several servers, on real databases, stores and a real broker, and what fails.

use mmate_test_support::{
    PostgreSql, ServiceProcess, amqp_url, mariadb_url, postgres_url, redis_url, until,
};
use serde_json::{Value, json};

use super::scene::{Scene, photo};
use crate::chat::name;

/// Two clients of one sender send one photo to two servers at the same time, while storing it takes long.
fn is_stored_once(scene: &Scene) {
    let (one, two) = (scene.server("one"), scene.server("two"));
    let (sender, recipient) = (name("anna"), name("bert"));
    let (here, there) = (scene.client(&one, &sender), scene.client(&two, &sender));
    let (at_one, at_two) = (scene.client(&one, &recipient), scene.client(&two, &recipient));
    let data = photo("m-1", &recipient, 0);
    let first = here.begin("send_photo", &data);
    let is_at_work = |server: &ServiceProcess| server.metric("mmate_claims_held", "") == 1;
    until("the first to be stored", || is_at_work(&one));
    let copies = [here.begin("send_photo", &data), there.begin("send_photo", &data)];
    assert!(!first.is_answered());
    let first = first.answer();
    assert_eq!((&first["success"], &first["cached"]), (&json!(true), &json!(false)), "{first}");
    for copy in copies {
        let answer = copy.answer();
        assert_eq!((&answer["cached"], &answer["url"]), (&json!(true), &first["url"]), "{answer}");
    }
    // The file is there for all servers.
    assert_eq!(two.page(first["url"].as_str().unwrap()).status, 200);
    there.ask("send_photo", &photo("m-2", &recipient, 1));
    for client in [&at_one, &at_two] {
        let shown = client.receives(2);
        let ids = shown.iter().map(|photo| &photo["messageId"]).collect::<Vec<_>>();
        assert_eq!(ids, ["m-1", "m-2"]);
    }
    let stored = |server: &ServiceProcess| server.metric("photos_uploads_total", "stored");
    assert_eq!((stored(&one), stored(&two)), (1, 1));
    let health: Value = serde_json::from_str(&one.page("/health").body).unwrap();
    assert_eq!(
        health["status"]["status"].as_str().or(health["status"].as_str()),
        Some("up"),
        "{health}"
    );
}

/// S1, S7: on files, without a broker.
#[test]
fn two_servers_store_a_photo_once_on_sqlite() {
    is_stored_once(&Scene::new(&["--storing-takes", "1500"]));
}

/// S1, S7
#[test]
fn two_servers_store_a_photo_once_on_redis_and_postgresql() {
    let (broker, database, store) = (amqp_url(), postgres_url(), redis_url());
    let places = ["--broker", &broker, "--database", &database, "--store", &store];
    is_stored_once(&Scene::new(&[&places[..], &["--storing-takes", "1500"]].concat()));
}

/// S1, S7
#[test]
fn two_servers_store_a_photo_once_on_mariadb() {
    let (broker, database) = (amqp_url(), mariadb_url());
    let places = ["--broker", &broker, "--database", &database, "--store", &database];
    is_stored_once(&Scene::new(&[&places[..], &["--storing-takes", "1500"]].concat()));
}

/// S9: a failure is answered and not kept.
#[test]
fn a_photo_that_could_not_be_stored_is_sent_again() {
    let mut database = PostgreSql::start().unwrap();
    let scene = Scene::new(&["--database", &database.url()]);
    let server = scene.server("server");
    let (anna, bert) = (scene.client(&server, "anna"), scene.client(&server, "bert"));
    anna.ask("send_photo", &photo("m-0", "bert", 0));
    bert.receives(1);
    database.stop().unwrap();
    let answer = anna.ask("send_photo", &photo("m-1", "bert", 1));
    assert_eq!(answer["success"], false);
    assert!(!answer["error"].as_str().unwrap().is_empty());
    until("the health", || server.page("/health").status == 503);
    database.start_again().unwrap();
    let answer = anna.ask("send_photo", &photo("m-1", "bert", 1));
    assert_eq!((&answer["success"], &answer["cached"]), (&json!(true), &json!(false)), "{answer}");
    assert_eq!(bert.receives(2)[1]["messageId"], "m-1");
    until("the health", || server.page("/health").status == 200);
}

/// S12: the server dies while it stores; the client goes to another one and sends it again.
#[test]
fn a_photo_is_stored_once_though_the_server_dies_at_it() {
    let scene = Scene::new(&["--storing-takes", "1000", "--lease", "2000"]);
    let (dies, lives) = (scene.server("dies"), scene.server("lives"));
    let bert = scene.client(&lives, "bert");
    let anna = scene.client(&dies, "anna");
    let lost = anna.begin("send_photo", &photo("m-1", "bert", 0));
    until("the photo to be stored", || dies.metric("mmate_claims_held", "") == 1);
    dies.kill();
    assert!(lost.answer()["lost"].is_string());
    let anna = scene.client(&lives, "anna");
    let answer = anna.ask("send_photo", &photo("m-1", "bert", 0));
    assert_eq!((&answer["success"], &answer["cached"]), (&json!(true), &json!(false)), "{answer}");
    anna.ask("send_photo", &photo("m-2", "bert", 1));
    let shown = bert.receives(2);
    let ids = shown.iter().map(|photo| &photo["messageId"]).collect::<Vec<_>>();
    assert_eq!(ids, ["m-1", "m-2"]);
}
