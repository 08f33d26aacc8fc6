//! The plan of a service, as it stands in `docs/topology.md`.
//!
//! With `MMATE_WRITE_DOCS=1` in the environment the test writes the page instead of comparing it.

use mmate_amqp::Amqp;
use mmate_core::{Declare, HandlerError, QueueKind, QueueRole, Service, Subscription};

async fn nothing() -> Result<(), HandlerError> {
    Ok(())
}

/// The service that the page shows.
fn billing() -> Service {
    Service::new("billing")
        .instance("pod-7")
        .subscribe(Subscription::per_service("charge-card", ["order.paid.eu-*"]).handler(nothing))
        .subscribe(
            Subscription::shared("invoices")
                .topics(["invoice.#"])
                .commands_for("billing")
                .queue_kind(QueueKind::Classic)
                .handler(nothing),
        )
        .subscribe(Subscription::shared("ledger").declare(Declare::Verify).handler(nothing))
        .subscribe(Subscription::per_instance("prices", ["price.changed.*"]).handler(nothing))
}

fn broker() -> Amqp {
    Amqp::new("amqp://alice:s3cret@broker")
}

#[test]
fn the_page_shows_what_the_plan_says() {
    let topology = billing().topology().on(&broker());
    let shown = format!("```text\n{topology}```\n\n```mermaid\n{}```\n", topology.to_mermaid());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/topology.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (begin, end) = ("<!-- plan: begin -->\n", "<!-- plan: end -->");
    let (before, rest) = page.split_once(begin).unwrap();
    let (between, after) = rest.split_once(end).unwrap();
    if std::env::var_os("MMATE_WRITE_DOCS").is_some() {
        std::fs::write(path, format!("{before}{begin}{shown}{end}{after}")).unwrap();
        return;
    }
    assert_eq!(
        between, shown,
        "run this test with MMATE_WRITE_DOCS=1 to bring the page up to date"
    );
}

/// Whatever a name has in it, a line of the chart is a node or an arrow, and no text ends early.
#[test]
fn the_chart_has_no_line_that_is_not_a_node_or_an_arrow() {
    let odd = Service::new("odd \"service\"")
        .subscribe(Subscription::shared("a]b\"c<br>`d`;e").topics(["x.#", "*.y"]).handler(nothing));
    for service in [billing(), odd] {
        let chart = service.topology().to_mermaid();
        let mut lines = chart.lines();
        assert_eq!(lines.next(), Some("flowchart LR"));
        for line in lines {
            assert_eq!(line.matches('"').count() % 2, 0, "{line}");
            let bare: String = line.split('"').step_by(2).collect::<Vec<_>>().join("T");
            let node = ["{{T}}", "[(T)]", "[T]"].iter().any(|shape| bare.ends_with(shape));
            let arrow = [" -- T --> q", " --> s", " -. T .-> d"].iter().any(|a| bare.contains(a));
            assert!(node || arrow, "{line}");
        }
    }
}

#[test]
fn the_plan_names_the_arguments_that_are_declared_and_no_password() {
    let topology = billing().topology().on(&broker().delivery_limit(7));
    let made = &topology.queues()[0].made;
    assert_eq!(made[0].name, "billing.charge-card");
    assert!(made[0].arguments.contains(&("x-delivery-limit".to_owned(), "7".to_owned())));
    assert_eq!(made[1].role, QueueRole::DeadLetters);
    assert_eq!(made[1].name, "dlq.billing.charge-card");
    assert_eq!(topology.exchanges(), ["mmate.commands", "mmate.events"]);
    assert!(!topology.to_string().contains("s3cret"));
}
