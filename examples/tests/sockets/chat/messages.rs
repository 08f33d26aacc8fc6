//! Messages between two users on two servers.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use mmate_test_support::{ServiceProcess, until};
use serde_json::{Value, json};

use super::scene::{Scene, numbers, open, page, say, text, texts, token};

/// S1, S33, S52: a resend, a double click, a second tab.
#[test]
fn a_message_that_is_sent_again_is_said_once_and_answered_as_the_first() {
    let scene = Scene::new(&[]);
    let (one, two) = (scene.server("one"), scene.server("two"));
    let (anna, tab) = (scene.client(&[&one], "anna"), scene.client(&[&two], "anna"));
    let bert = scene.client(&[&two], "bert");
    let conversation = open(&anna, "bert");
    let first = anna.ask("send", &text(&conversation, "m-1", "hello"));
    assert_eq!(
        (&first["success"], &first["number"], &first["cached"]),
        (&json!(true), &json!(1), &json!(false))
    );
    let again = [
        anna.begin("send", &text(&conversation, "m-1", "hello")),
        anna.begin("send", &text(&conversation, "m-1", "hello")),
        tab.begin("send", &text(&conversation, "m-1", "hello")),
    ];
    for asked in again {
        let answer = asked.answer();
        assert_eq!(answer["cached"], true, "{answer}");
        assert_eq!(
            (&answer["number"], &answer["sentAtMs"]),
            (&first["number"], &first["sentAtMs"])
        );
    }
    // At the same time, before the first is answered.
    let at_once = [
        anna.begin("send", &text(&conversation, "m-2", "double click")),
        anna.begin("send", &text(&conversation, "m-2", "double click")),
        tab.begin("send", &text(&conversation, "m-2", "double click")),
    ];
    let answers = at_once.map(|asked| asked.answer());
    assert!(answers.iter().all(|answer| answer["number"] == 2), "{answers:?}");
    assert_eq!(answers.iter().filter(|answer| answer["cached"] == false).count(), 1, "{answers:?}");
    say(&anna, &conversation, "m-3");
    for client in [&anna, &tab, &bert] {
        let shown = client.receives(3);
        assert_eq!(numbers(&shown), [1, 2, 3]);
        assert_eq!(texts(&shown), ["hello", "double click", "m-3"]);
    }
    // The same id for another text.
    let answer = anna.ask("send", &text(&conversation, "m-1", "something else"));
    assert_eq!(answer["success"], false, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("used for another message"), "{answer}");
    let sent = |cached: &str| {
        one.metric("chat_messages_total", cached) + two.metric("chat_messages_total", cached)
    };
    assert_eq!((sent("cached=\"false\""), sent("cached=\"true\"")), (3, 5));
}

/// A client that does not wait for its answers is told to wait, and loses nothing by it.
#[test]
fn a_client_that_asks_for_too_much_at_once_is_told_to_try_again() {
    const MESSAGES: usize = 200;
    let scene = Scene::new(&[]);
    let server = scene.server("server");
    let (anna, bert) = (scene.client(&[&server], "anna"), scene.client(&[&server], "bert"));
    let conversation = open(&anna, "bert");
    let message = |number: &usize| text(&conversation, &format!("m-{number}"), "hello");
    let begun = (0..MESSAGES).map(|number| (number, anna.begin("send", &message(&number))));
    let begun = begun.collect::<Vec<_>>();
    let mut refused = Vec::new();
    for (number, asked) in begun {
        let answer = asked.answer();
        if answer["success"] == false {
            let error = answer["error"].as_str().unwrap();
            assert!(error.starts_with("try again: this client asks for too much"), "{error}");
            refused.push(number);
        }
    }
    assert!(!refused.is_empty() && refused.len() < MESSAGES, "{} refused", refused.len());
    for number in &refused {
        let answer = anna.ask("send", &message(number));
        assert_eq!((&answer["success"], &answer["cached"]), (&json!(true), &json!(false)));
    }
    assert_eq!(numbers(&bert.receives(MESSAGES)), (1..=MESSAGES as i64).collect::<Vec<_>>());
}

/// S37: the record is kept for a week, and the message is there all the same.
#[test]
fn a_client_that_was_away_longer_than_records_are_kept_says_nothing_twice() {
    let scene = Scene::new(&[]);
    let server = scene.server("server");
    let (anna, bert) = (scene.client(&[&server], "anna"), scene.client(&[&server], "bert"));
    let conversation = open(&anna, "bert");
    let first = anna.ask("send", &text(&conversation, "m-1", "hello"));
    scene.forget_records();
    let again = anna.ask("send", &text(&conversation, "m-1", "hello"));
    assert_eq!((&again["success"], &again["cached"]), (&json!(true), &json!(true)), "{again}");
    assert_eq!((&again["number"], &again["sentAtMs"]), (&first["number"], &first["sentAtMs"]));
    let opened = bert.ask("open", &json!({"with": "anna"}));
    let (id, created) = (&opened["conversation"], &opened["created"]);
    assert_eq!((id, created), (&json!(conversation), &json!(false)), "{opened}");
    scene.forget_records();
    let another = anna.ask("send", &text(&conversation, "m-1", "something else"));
    assert_eq!(another["error"], "this messageId was used for another message", "{another}");
    assert_eq!(say(&anna, &conversation, "m-2"), 2);
    assert_eq!(texts(&bert.receives(2)), ["hello", "m-2"]);
}

/// S24: numbers without a gap, and the same order for everybody, though both talk at the same time on two servers.
#[test]
fn both_see_all_messages_once_and_in_the_order_of_their_numbers() {
    const EACH: usize = 40;
    let scene = Scene::on_postgresql_and_redis(&[]);
    let (one, two) = (scene.server("one"), scene.server("two"));
    let (anna, bert) = (scene.client(&[&one], "anna"), scene.client(&[&two], "bert"));
    let conversation = open(&anna, "bert");
    std::thread::scope(|scope| {
        for client in [&anna, &bert] {
            let conversation = &conversation;
            scope.spawn(move || {
                for number in 0..EACH {
                    say(client, conversation, &format!("m-{number}"));
                }
            });
        }
    });
    let of_anna = anna.receives(2 * EACH);
    assert_eq!(numbers(&of_anna), (1..=2 * EACH as i64).collect::<Vec<_>>());
    assert_eq!(bert.receives(2 * EACH), of_anna);
    // Each one's own are in the order in which they were said.
    for sender in ["anna", "bert"] {
        let own = of_anna.iter().filter(|message| message["sender"] == sender);
        let said = own.map(|message| message["said"].as_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(said, (0..EACH).map(|number| format!("m-{number}")).collect::<Vec<_>>());
    }
}

/// Whoever was away finds what came meanwhile, in order, and nothing of what was seen before.
#[test]
fn messages_wait_for_who_is_away_and_who_writes_is_a_contact() {
    let scene = Scene::on_mariadb(&[]);
    let (one, two) = (scene.server("one"), scene.server("two"));
    let (of_anna, of_bert) = (super::scene::name("anna"), super::scene::name("bert"));
    let anna = scene.client(&[&one], &of_anna);
    let conversation = open(&anna, &of_bert);
    assert_eq!(page(&one, "/api/contacts", &of_bert), json!([]));
    for number in 1..=5 {
        assert_eq!(say(&anna, &conversation, &format!("m-{number}")), number);
    }
    assert_eq!(page(&two, "/api/contacts", &of_bert), json!([of_anna]));
    assert_eq!(page(&two, "/api/contacts", &of_anna), json!([of_bert]));

    let bert = scene.client(&[&two], &of_bert);
    assert_eq!(numbers(&bert.receives(5)), [1, 2, 3, 4, 5]);
    bert.close();
    say(&anna, &conversation, "m-6");
    let seen = json!({ &conversation: 5 });
    let bert = scene.client_after(&[&one], &of_bert, &seen);
    say(&anna, &conversation, "m-7");
    assert_eq!(numbers(&bert.receives(2)), [6, 7]);
    let contacts = bert.ask("contacts", &json!({}));
    assert_eq!(contacts["contacts"], json!([of_anna]));
}

/// Without any server: two in one process.
#[test]
fn one_command_is_a_chat_to_try() {
    let scene = Scene::new(&[]);
    let mut command = scene.command(&["--listen", "127.0.0.1:0,127.0.0.1:0"]);
    let one = ServiceProcess::start("chat", scene.folder.path(), &mut command);
    let servers: Vec<String> = serde_json::from_str(&one.page("/api/servers").body).unwrap();
    let auth = |name: &str| json!({"token": token(&one, name)});
    let client = |url: &String, name: &str| {
        scene.clients.client_at(&[url], &auth(name), "message", &json!({})).connected()
    };
    let (anna, bert) = (client(&servers[0], "anna"), client(&servers[1], "bert"));
    let conversation = open(&anna, "bert");
    assert_eq!(say(&anna, &conversation, "m-1"), 1);
    assert_eq!(say(&bert, &conversation, "m-1"), 2);
    assert_eq!(anna.receives(2), bert.receives(2));
    for (path, part) in
        [("/", "<title>mmate chat"), ("/chat.js", "connection.js"), ("/chat.css", ".door")]
    {
        let page = one.page(path);
        assert!(page.status == 200 && page.body.contains(part), "{path}: {page:?}");
    }
    assert_eq!(one.terminate(), Some(0));
}

#[test]
fn strangers_and_what_is_no_message_are_refused() {
    let scene = Scene::new(&[]);
    let server = scene.server("server");
    let good = token(&server, "anna");
    for auth in
        [json!({}), json!({"token": "anna"}), json!({"token": good.replace("anna", "bert")})]
    {
        let client = scene.clients.client(&[&server], &auth, "message", &json!({}));
        assert!(client.refusal().contains("sign"), "{}", client.refusal());
    }
    let (anna, carl) = (scene.client(&[&server], "anna"), scene.client(&[&server], "carl"));
    let conversation = open(&anna, "bert");
    let without = |field: &str| {
        let mut data = text(&conversation, "m-1", "x");
        data.as_object_mut().unwrap().remove(field);
        data
    };
    let cases = [
        (&anna, text(&conversation, "m-1", ""), "1 to 4000 letters"),
        (&anna, text(&conversation, "m-1", "a\0b"), "none is NUL"),
        (&anna, text(&conversation, "m-1", &"x".repeat(4_001)), "1 to 4000 letters"),
        (&anna, text(&conversation, &"m".repeat(201), "x"), "200 bytes"),
        (&anna, text(&conversation, "", "x"), "empty"),
        (&anna, without("conversation"), "missing field"),
        (&anna, text("no-such", "m-1", "x"), "you are not in this conversation"),
        (&anna, text("a.b", "m-1", "x"), "there is no such conversation"),
        (&anna, text("", "m-1", "x"), "there is no such conversation"),
        (&carl, text(&conversation, "m-1", "x"), "you are not in this conversation"),
    ];
    for (client, data, reason) in &cases {
        let answer = client.ask("send", data);
        assert_eq!(answer["success"], false, "{answer}");
        assert!(
            answer["error"].as_str().unwrap().contains(reason),
            "{answer} is not about {reason}"
        );
    }
    // Nothing of it has a number.
    assert_eq!(say(&anna, &conversation, "m-1"), 1);
    assert!(carl.received().is_empty());
}

/// S42: how broker, store and database are.
#[test]
fn the_health_tells_of_broker_store_and_database() {
    let mut scene = Scene::on_postgresql_and_redis(&[]);
    let server = scene.server("server");
    let health = || server.page("/health");
    let body = || serde_json::from_str::<Value>(&health().body).unwrap();
    let part = |name: &str| body()["connections"][name]["status"].as_str().unwrap().to_owned();
    assert_eq!(health().status, 200);
    for name in ["publish", "consume", "database", "store"] {
        assert_eq!(part(name), "up", "{}", body());
    }
    let redis = scene.redis.as_mut().unwrap();
    redis.kill();
    until("the store to be troubled", || part("store") == "degraded");
    redis.start_again().unwrap();
    until("the store to be back", || part("store") == "up");
    let anna = scene.client(&[&server], "anna");
    let conversation = open(&anna, "bert");
    say(&anna, &conversation, "m-1");
    scene.broker.kill();
    until("the health to be bad", || health().status == 503);
    let answer = anna.ask("send", &text(&conversation, "m-2", "while it is away"));
    assert_eq!(answer["success"], false, "{answer}");
    assert!(
        answer["error"].as_str().unwrap().contains("try again with the same messageId"),
        "{answer}"
    );
    scene.broker.start_again().unwrap();
    until("the health to be good", || health().status == 200);
    let is_said = AtomicBool::new(false);
    until("the message to be said", || {
        let answer = anna.ask("send", &text(&conversation, "m-2", "while it is away"));
        is_said.store(answer["success"] == true, SeqCst);
        is_said.load(SeqCst)
    });
    assert_eq!(texts(&anna.receives(2)), ["m-1", "while it is away"]);
}
