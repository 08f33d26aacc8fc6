//! What is answered, and what is shown to whom.

use std::process::Command;

use serde_json::{Value, json};

use super::scene::{Scene, photo, token};
use crate::clients::Client;
use crate::files;

/// S1: in one process, without any server.
#[test]
fn the_demonstration_stores_and_delivers_each_photo_once() {
    let mut photos = Command::new(env!("CARGO_BIN_EXE_photos"));
    let shown = photos.args(["--photos", "40"]).output().unwrap();
    let said = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.status.success(), "{said}{}", String::from_utf8_lossy(&shown.stderr));
    for row in
        ["answered as stored      40", "answered as cached      80", "delivered               40"]
    {
        assert!(said.contains(row), "{said}");
    }
}

/// S1, S31, S52: the first answer again, with the URL of the first.
#[test]
fn a_repeated_photo_is_answered_as_the_first_and_delivered_once() {
    let scene = Scene::new(&["--store", "memory"]);
    let server = scene.server("server");
    let (anna, bert) = (scene.client(&server, "anna"), scene.client(&server, "bert"));
    let first = anna.ask("send_photo", &photo("m-1", "bert", 0));
    assert_eq!((&first["success"], &first["cached"]), (&json!(true), &json!(false)), "{first}");
    for _ in 0..3 {
        let again = anna.ask("send_photo", &photo("m-1", "bert", 0));
        assert_eq!((&again["success"], &again["cached"]), (&json!(true), &json!(true)), "{again}");
        assert_eq!(again["url"], first["url"]);
    }
    // The ids are the senders' own.
    let carl = scene.client(&server, "carl");
    assert_eq!(carl.ask("send_photo", &photo("m-1", "bert", 1))["cached"], false);

    let shown = bert.receives(2);
    assert_eq!(shown[0]["url"], first["url"]);
    assert_eq!(shown[0]["sender"], "anna");
    assert_eq!(shown[0]["kind"], "photo");
    let url = first["url"].as_str().unwrap();
    let page = server.page(url);
    assert_eq!(page.status, 200);
    assert!(page.body.starts_with("GIF89a"), "{page:?}");
    // Behind the last photo is a moment: what would have come twice came before it.
    anna.ask("send_moment", &photo("m-2", "bert", 2));
    let shown = bert.receives(3);
    let kinds = shown.iter().map(|photo| &photo["kind"]).collect::<Vec<_>>();
    assert_eq!(kinds, ["photo", "photo", "moment"]);
    assert!(anna.received().is_empty());
    assert_eq!(scene.files(), 3);

    assert_eq!(server.metric("photos_uploads_total", "answer=\"stored\""), 3);
    assert_eq!(server.metric("photos_uploads_total", "answer=\"cached\""), 3);
    assert_eq!(server.metric("mmate_runs_total", "replayed"), 3);
    assert_eq!(server.metric("photos_delivered_total", ""), 3);
    mmate_test_support::until("the rate in the log", || server.log().contains("50.0 %"));
    assert_eq!(server.terminate(), Some(0));
}

/// S33: also another photo under the same id.
#[test]
fn what_is_no_photo_is_told_and_the_id_can_be_used_again() {
    let scene = Scene::new(&["--store", "memory", "--largest", "2000"]);
    let server = scene.server("server");
    let anna = scene.client(&server, "anna");
    let with = |name: &str, value: Value| {
        let mut data = photo("m-1", "bert", 0);
        data[name] = value;
        data
    };
    let cases = [
        (with("content", json!("!!")), "not base64"),
        (with("content", json!("PGh0bWw+")), "not a JPEG, PNG, GIF or WebP"),
        (with("content", json!("A".repeat(4_000))), "larger than 2000 bytes"),
        (with("recipient", json!("Bert!")), "a name has 1 to 32"),
        (with("messageId", json!("")), "empty"),
        (with("other", json!(1)), "unknown field"),
        (json!({"messageId": "m-1"}), "missing field"),
        (json!(7), "expected struct"),
    ];
    for (data, reason) in &cases {
        let answer = anna.ask("send_photo", data);
        assert_eq!(answer["success"], false, "{answer}");
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(reason), "{error} is not about {reason}");
    }
    assert_eq!(anna.ask("send_photo", &photo("m-1", "bert", 0))["cached"], false);
    // The same id for another photo, or another recipient.
    for other in [photo("m-1", "bert", 1), photo("m-1", "carl", 0)] {
        let answer = anna.ask("send_photo", &other);
        assert_eq!(answer["error"], "this messageId was used for another photo");
    }
    assert_eq!(server.metric("photos_uploads_total", "answer=\"failed\""), cases.len() as u64 + 2);
    assert_eq!(scene.files(), 1);
    for page in ["/photos/x.gif", "/photos/..%2Fphotos.db", "/photos/%2e%2e%2fserver.log.gif"] {
        assert_eq!(server.page(page).status, 404, "{page}");
    }
}

#[test]
fn who_is_not_signed_in_is_refused() {
    let scene = Scene::new(&["--store", "memory"]);
    let server = scene.server("server");
    let good = token(&server, "anna");
    for (auth, reason) in [
        (json!({}), "auth is {token, after}"),
        (json!({"token": "anna"}), "sign in"),
        (json!({"token": good.replace("anna", "bert")}), "sign in"),
    ] {
        let refusal = scene.stranger(&server, &auth).refusal();
        assert!(refusal.contains(reason), "{refusal}");
    }
    for name in ["", "Anna", "a b"] {
        let answer = server.post("/sign-in", &json!({"name": name}).to_string());
        assert_eq!(answer.status, 422, "{answer:?}");
        assert!(answer.body.contains("a name has 1 to 32"), "{answer:?}");
    }
    assert_eq!(server.page("/api/records").status, 401);
}

/// Whoever was away is shown what came meanwhile, in order, and nothing of what was seen before.
#[test]
fn photos_wait_for_their_recipient() {
    let scene = Scene::new(&[]);
    let server = scene.server("server");
    let anna = scene.client(&server, "anna");
    let ids = (0..5).map(|number| format!("m-{number}")).collect::<Vec<_>>();
    for id in &ids[..3] {
        anna.ask("send_photo", &photo(id, "bert", 0));
    }
    let bert = scene.client(&server, "bert");
    let shown = bert.receives(3);
    let seen = shown[2]["number"].as_i64().unwrap();
    bert.close();
    for id in &ids[3..] {
        anna.ask("send_photo", &photo(id, "bert", 0));
    }
    let shown = scene.client_after(&server, "bert", seen).receives(2);
    let of_shown = shown.iter().map(|photo| &photo["messageId"]).collect::<Vec<_>>();
    assert_eq!(of_shown, ["m-3", "m-4"]);
}

/// S37: a record in a database can be asked for, and says that it goes after a day.
#[test]
fn records_are_kept_for_a_day_and_can_be_asked_for() {
    let scene = Scene::new(&[]);
    let server = scene.server("server");
    let anna = scene.client(&server, "anna");
    anna.ask("send_photo", &photo("m-1", "bert", 0));
    let records = |name: &str| {
        let token = format!("Bearer {}", token(&server, name));
        let answer = server.ask("GET /api/records", &[("Authorization", &token)], "").unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        serde_json::from_str::<Value>(&answer.body).unwrap()
    };
    let of_anna = records("anna");
    assert_eq!(of_anna[0]["messageId"], "m-1");
    assert_eq!(of_anna[0]["status"], "done");
    let at = |name: &str| of_anna[0][name].as_i64().unwrap();
    assert_eq!(at("expiresAt") - at("processedAt"), 24 * 60 * 60);
    assert_eq!(records("bert"), json!([]));

    let of_memory = Scene::new(&["--store", "memory"]);
    let server = of_memory.server("server");
    let token = format!("Bearer {}", token(&server, "anna"));
    let answer = server.ask("GET /api/records", &[("Authorization", &token)], "").unwrap();
    assert_eq!(answer.status, 501, "{answer:?}");
}

/// S37, S39: what is forgotten is removed, and the photo is there all the same.
#[test]
fn a_record_whose_time_is_over_is_removed_and_its_photo_is_not_stored_again() {
    let scene = Scene::new(&["--purge-every", "1"]);
    let server = scene.server("server");
    let (anna, bert) = (scene.client(&server, "anna"), scene.client(&server, "bert"));
    let first = anna.ask("send_photo", &photo("m-1", "bert", 0));
    let ends = "UPDATE processed_messages SET expires_at = 1 WHERE status = 'done'";
    assert_eq!(files::execute(&scene.folder.path().join("photo-records.db"), ends), 1);
    mmate_test_support::until("the purge", || server.metric("mmate_records_purged_total", "") > 0);
    is_answered_without_its_record(&scene, &anna, &bert, &first);
}

/// S41: a store in memory is bounded.
#[test]
fn a_store_in_memory_forgets_the_oldest_and_its_photo_is_not_stored_again() {
    let scene = Scene::new(&["--store", "memory", "--keep-most", "3"]);
    let server = scene.server("server");
    let (anna, bert) = (scene.client(&server, "anna"), scene.client(&server, "bert"));
    let first = anna.ask("send_photo", &photo("m-1", "bert", 0));
    for number in 1..=4 {
        anna.ask("send_photo", &photo(&format!("other-{number}"), "carl", number));
    }
    mmate_test_support::until("the oldest to be forgotten", || {
        server.metric("mmate_records_evicted_total", "") >= 1
    });
    is_answered_without_its_record(&scene, &anna, &bert, &first);
}

fn is_answered_without_its_record(scene: &Scene, anna: &Client, bert: &Client, first: &Value) {
    let files = scene.files();
    let another = anna.ask("send_photo", &photo("m-1", "bert", 5));
    assert_eq!(another["error"], "this messageId was used for another photo", "{another}");
    let again = anna.ask("send_photo", &photo("m-1", "bert", 0));
    assert_eq!((&again["success"], &again["cached"]), (&json!(true), &json!(true)), "{again}");
    assert_eq!(again["url"], first["url"]);
    assert_eq!(scene.files(), files);
    anna.ask("send_photo", &photo("m-2", "bert", 9));
    let shown = bert.receives(2);
    let ids = shown.iter().map(|photo| &photo["messageId"]).collect::<Vec<_>>();
    assert_eq!(ids, ["m-1", "m-2"]);
}

/// S37: Redis forgets by itself, after a day.
#[test]
fn in_redis_a_record_is_kept_for_a_day() {
    const DAY: i64 = 24 * 60 * 60 * 1_000;
    let redis = mmate_test_support::Redis::start().unwrap();
    let scene = Scene::new(&["--store", &redis.url()]);
    let server = scene.server("server");
    let anna = scene.client(&server, "anna");
    anna.ask("send_photo", &photo("m-1", "bert", 0));
    let keys = redis.ask("KEYS *m-1*").unwrap();
    assert_eq!(keys.lines().count(), 1, "{keys}");
    let left = redis.ask(&format!("PTTL {keys}")).unwrap().parse::<i64>().unwrap();
    assert!((DAY - 60_000..=DAY).contains(&left), "{left}");
}
