//! Queues, exchanges and bindings as the broker has them.

use std::time::Duration;

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use mmate_core::TransportErrorKind;
use mmate_core::topic::TopicPattern;
use mmate_core::transport::{Connection, Declare, QueueKind, QueueMode, QueuePlan, TransportError};
use mmate_test_support::{amqp_url, unique};

use crate::support::{
    Stranger, ack, broker, connect, ctl, event, id_of, next, plan, plan_as, private_url, retry,
    settle, shared, until,
};

/// The line that `rabbitmqctl` has for a thing of this name.
fn line<'a>(list: &'a str, name: &str) -> &'a str {
    let found = list.lines().find(|line| line.split('\t').next() == Some(name));
    found.unwrap_or_else(|| panic!("there is no {name} in\n{list}"))
}

fn queues() -> String {
    ctl(&["list_queues", "name", "type", "durable", "auto_delete", "arguments"])
}

/// Whether the list of arguments has exactly these.
fn assert_arguments(line: &str, mut expected: Vec<String>) {
    let list = line.rsplit('\t').next().unwrap().trim_matches(['[', ']']);
    let mut arguments: Vec<_> = list
        .split("{\"")
        .filter(|argument| !argument.is_empty())
        .map(|argument| format!("{{\"{}", argument.trim_end_matches(", ").trim_end_matches(',')))
        .collect();
    arguments.sort();
    expected.sort();
    assert_eq!(arguments, expected);
}

fn text(name: &str, value: &str) -> String {
    format!("{{\"{name}\",\"{value}\"}}")
}

fn number(name: &str, value: u64) -> String {
    format!("{{\"{name}\",{value}}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_made_as_the_wire_format_says() {
    let connection = connect(broker(&private_url()).delivery_limit(7)).await;
    let quorum = plan("quorum");
    let mut classic = plan_as("classic", QueueMode::PerService);
    classic.kind = QueueKind::Classic;
    let own = plan_as("own", QueueMode::PerInstance);
    for plan in [&quorum, &classic, &own] {
        connection.declare(plan).await.unwrap();
        let mut consumer = connection.consume(plan, 1).await.unwrap();
        connection.publish(event(plan, "1")).await.unwrap();
        settle(next(&mut consumer).await, retry(Duration::from_secs(200))).await;
        std::mem::forget(consumer);
    }
    let queues = queues();

    let delay = |queue: &str| {
        // rabbitmqctl shows an empty text as an empty list.
        let exchange = "{\"x-dead-letter-exchange\",[]}".to_owned();
        let to = [exchange, text("x-dead-letter-routing-key", queue)];
        [to.to_vec(), vec![number("x-message-ttl", 300_000)]].concat()
    };
    let at_least_once =
        [text("x-dead-letter-strategy", "at-least-once"), text("x-overflow", "reject-publish")];
    let is_quorum = [text("x-queue-type", "quorum")];

    let found = line(&queues, &quorum.name);
    assert!(found.contains("\tquorum\ttrue\tfalse\t"), "{found}");
    let letters = [
        text("x-dead-letter-exchange", "mmate.dlx"),
        text("x-dead-letter-routing-key", &quorum.name),
        number("x-delivery-limit", 7),
    ];
    assert_arguments(found, [&letters[..], &at_least_once, &is_quorum].concat());
    let found = line(&queues, &format!("{}.delay.300000", quorum.name));
    assert!(found.contains("\tquorum\ttrue\tfalse\t"), "{found}");
    assert_arguments(found, [&delay(&quorum.name)[..], &at_least_once, &is_quorum].concat());

    let found = line(&queues, &classic.name);
    assert!(found.contains("\tclassic\ttrue\tfalse\t"), "{found}");
    assert_arguments(found, vec![]);
    let found = line(&queues, &format!("{}.delay.300000", classic.name));
    assert_arguments(found, [&delay(&classic.name)[..], &at_least_once, &is_quorum].concat());

    let found = line(&queues, &own.name);
    assert!(found.contains("\tclassic\tfalse\ttrue\t"), "{found}");
    assert_arguments(found, vec![]);
    let found = line(&queues, &format!("{}.delay.300000", own.name));
    assert!(found.contains("\tclassic\tfalse\tfalse\t"), "{found}");
    assert_arguments(found, delay(&own.name));

    for plan in [&quorum, &classic, &own] {
        let found = line(&queues, &plan.dead_letter_queue());
        assert!(found.contains("\tquorum\ttrue\tfalse\t"), "{found}");
        let never = number("x-delivery-limit", 1_000_000_000);
        assert_arguments(found, [&is_quorum[..], &[never]].concat());
    }

    let exchanges = ctl(&["list_exchanges", "name", "type", "durable", "auto_delete", "arguments"]);
    for name in ["mmate.events", "mmate.commands", "mmate.queries", "mmate.messages", "mmate.dlx"] {
        assert_eq!(line(&exchanges, name), format!("{name}\ttopic\ttrue\tfalse\t[]"));
    }
    let bindings = ctl(&["list_bindings", "source_name", "destination_name", "routing_key"]);
    for plan in [&quorum, &classic, &own] {
        for line in [
            format!("mmate.events\t{name}\t{name}.#", name = plan.name),
            format!("mmate.dlx\tdlq.{name}\t{name}", name = plan.name),
        ] {
            assert!(bindings.lines().any(|l| l == line), "there is no {line} in\n{bindings}");
        }
    }
    connection.close().await;
}

async fn refusal(connection: &dyn Connection, plan: &QueuePlan) -> TransportError {
    connection.declare(plan).await.expect_err("the declaration is refused")
}

/// F28
#[tokio::test]
async fn a_mismatch_names_the_queue_the_argument_both_values_and_a_way_out() {
    let connection = connect(shared()).await;
    let mut plan = plan("mismatch");
    plan.kind = QueueKind::Classic;
    connection.declare(&plan).await.unwrap();
    plan.kind = QueueKind::Quorum;
    let error = refusal(&*connection, &plan).await;
    assert_eq!(error.kind(), TransportErrorKind::Mismatch);
    let text = error.to_string();
    // The broker names the first argument that differs.
    let parts = [&plan.name, "x-dead-letter-exchange", "'mmate.dlx'", "current is none"];
    for part in parts.into_iter().chain([".passive()", ".queue_kind("]) {
        assert!(text.contains(part), "{part} is not in: {text}");
    }

    let other_limit = connect(shared().delivery_limit(5)).await;
    let plan = crate::support::plan("limits");
    connection.declare(&plan).await.unwrap();
    let text = refusal(&*other_limit, &plan).await.to_string();
    for part in [plan.name.as_str(), "x-delivery-limit", "'5'", "'20'"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
}

/// F28
#[tokio::test]
async fn a_missing_and_a_locked_queue_are_told_apart() {
    let connection = connect(shared()).await;
    let mut missing = plan("missing");
    missing.declare = Declare::Passive;
    let error = refusal(&*connection, &missing).await;
    assert_eq!(error.kind(), TransportErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains(&missing.name), "{error}");
    let dead = Stranger::at(&amqp_url()).await.ready(&missing.dead_letter_queue()).await;
    assert_eq!(dead, None, "nothing is made for a queue that is not there");

    let own = plan_as("own", QueueMode::PerInstance);
    connection.declare(&own).await.unwrap();
    let error = refusal(&*connect(shared()).await, &own).await;
    assert_eq!(error.kind(), TransportErrorKind::Locked, "{error}");
    assert!(error.to_string().contains(&own.name), "{error}");
}

/// F28: one who may use what is there, and make nothing.
#[tokio::test(flavor = "multi_thread")]
async fn without_permission_to_make_things_those_that_are_there_are_used() {
    let url = private_url();
    let user = unique("reader");
    ctl(&["add_user", &user, "secret"]);
    ctl(&["set_permissions", &user, "^$", ".*", ".*"]);
    let limited = broker(&url.replace("guest:guest", &format!("{user}:secret")))
        .settle_timeout(Duration::from_millis(500));
    let limited = connect(limited).await;

    let mut plan = plan("permitted");
    let error = refusal(&*limited, &plan).await;
    assert_eq!(error.kind(), TransportErrorKind::Forbidden, "{error}");
    for part in [plan.name.as_str(), "configure permission"] {
        assert!(error.to_string().contains(part), "{part} is not in: {error}");
    }

    connect(broker(&url)).await.declare(&plan).await.unwrap();
    plan.declare = Declare::Passive;
    limited.declare(&plan).await.unwrap();
    let mut consumer = limited.consume(&plan, 1).await.unwrap();
    limited.publish(event(&plan, "1")).await.unwrap();
    ack(next(&mut consumer).await).await;

    // Delay queues, too, are used if they are there.
    let owner = connect(broker(&url)).await;
    owner.publish(event(&plan, "2")).await.unwrap();
    let delivery = next(&mut consumer).await;
    assert!(delivery.settle(retry(Duration::from_millis(10))).await.is_lost());
    let mut owners = owner.consume(&plan, 1).await.unwrap();
    consumer.stop().await;
    settle(next(&mut owners).await, retry(Duration::from_millis(10))).await;
    owners.stop().await;
    let mut consumer = limited.consume(&plan, 1).await.unwrap();
    settle(next(&mut consumer).await, retry(Duration::from_millis(10))).await;
    let again = next(&mut consumer).await;
    assert_eq!(again.failed_attempts, 2);
    ack(again).await;
}

/// A dead-letter queue that somebody else made, as mmate for Go does, is good enough.
#[tokio::test]
async fn a_dead_letter_queue_of_another_make_is_used() {
    let stranger = Stranger::at(&amqp_url()).await;
    let plan = plan("theirs");
    let dead = plan.dead_letter_queue();
    let options = QueueDeclareOptions::durable();
    let declared =
        stranger.channel.queue_declare(dead.as_str().into(), options, FieldTable::default());
    declared.await.unwrap();
    let connection = connect(shared()).await;
    connection.declare(&plan).await.unwrap();
    connection.publish(event(&plan, "1")).await.unwrap();
    let mut consumer = connection.consume(&plan, 1).await.unwrap();
    settle(next(&mut consumer).await, crate::support::bury()).await;
    stranger.until_ready(&dead, 1).await;
}

#[tokio::test]
async fn an_exchange_of_another_type_is_a_mismatch() {
    let stranger = Stranger::at(&amqp_url()).await;
    let name = unique("fanout");
    let (kind, options) = (ExchangeKind::Fanout, ExchangeDeclareOptions::default());
    let none = FieldTable::default();
    stranger.channel.exchange_declare(name.as_str().into(), kind, options, none).await.unwrap();
    let plan = plan("other").bind(name.as_str(), TopicPattern::new("#").unwrap());
    let error = refusal(&*connect(shared()).await, &plan).await;
    assert_eq!(error.kind(), TransportErrorKind::Mismatch, "{error}");
    assert!(error.to_string().contains(&name), "{error}");
}

#[tokio::test]
async fn names_that_do_not_fit_are_told_before_anything_is_made() {
    let connection = connect(shared()).await;
    for name in [String::new(), "q".repeat(241)] {
        let error = refusal(&*connection, &QueuePlan::new(name, QueueMode::Shared)).await;
        assert_eq!(error.kind(), TransportErrorKind::Configuration, "{error}");
    }
    let longest = format!("{:q<240}", unique("long"));
    let plan = QueuePlan::new(longest, QueueMode::PerInstance);
    connection.declare(&plan).await.unwrap();
    // Another pattern than its name's, which has no room for more.
    let exchange = "e".repeat(256);
    let plan = plan.bind(exchange, TopicPattern::new("#").unwrap());
    let error = refusal(&*connection, &plan).await;
    assert_eq!(error.kind(), TransportErrorKind::Configuration, "{error}");
}

/// F27
#[tokio::test]
async fn a_binding_and_an_exchange_that_are_deleted_come_back() {
    let stranger = Stranger::at(&amqp_url()).await;
    let exchange = unique("deleted");
    let pattern = || TopicPattern::new("order.#").unwrap();
    let plan =
        QueuePlan::new(unique("bound"), QueueMode::Shared).bind(exchange.as_str(), pattern());
    let connection = connect(shared().check_topology_every(Duration::from_millis(200))).await;
    connection.declare(&plan).await.unwrap();
    let mut consumer = connection.consume(&plan, 1).await.unwrap();
    let publication = |id: &str| {
        let to = crate::support::topic(&exchange, "order.created");
        mmate_core::transport::Publication::new(to, crate::support::message(id))
    };
    let channel = &stranger.channel;
    let (queue, from) = (plan.name.as_str(), exchange.as_str());

    let unbinding =
        channel.queue_unbind(queue.into(), from.into(), "order.#".into(), FieldTable::default());
    unbinding.await.unwrap();
    until("the binding is back", async || connection.publish(publication("1")).await.ok()).await;
    let delivery = next(&mut consumer).await;
    assert_eq!(id_of(&delivery), "1");
    ack(delivery).await;

    channel.exchange_delete(from.into(), ExchangeDeleteOptions::default()).await.unwrap();
    until("the exchange is back", async || connection.publish(publication("2")).await.ok()).await;
    let delivery = next(&mut consumer).await;
    assert_eq!(id_of(&delivery), "2");
    ack(delivery).await;
}
