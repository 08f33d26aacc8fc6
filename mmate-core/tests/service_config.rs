//! What a service says of its configuration before it runs.

use std::num::NonZeroU16;

use async_trait::async_trait;
use mmate_core::transport::QueueMode;
use mmate_core::{
    ConfigError, Context, Declare, HandlerError, Idempotency, InProcess, Middleware, Next, Outcome,
    QueueKind, Scope, Service, ServiceError, State, Subscription,
};

async fn nothing() -> Result<(), HandlerError> {
    Ok(())
}

async fn errors(service: Service) -> (String, Vec<ConfigError>) {
    let broker = InProcess::new();
    let error = service.start(broker.clone()).await.expect_err("it cannot work");
    assert!(broker.queues().is_empty(), "nothing is declared for a service that cannot work");
    let text = error.to_string();
    match error {
        ServiceError::Config(errors) => (text, errors),
        error => panic!("not a configuration error: {error}"),
    }
}

async fn error(service: Service) -> String {
    let (text, errors) = errors(service).await;
    assert_eq!(errors.len(), 1, "{text}");
    errors[0].to_string()
}

fn with(subscription: Subscription) -> Service {
    Service::new("shop").subscribe(subscription)
}

#[tokio::test]
async fn all_that_is_wrong_is_told_at_once() {
    async fn wants(State(_): State<u64>) -> Result<(), HandlerError> {
        Ok(())
    }
    let broken = Subscription::per_service("", ["order.[", "ok.*", "a..b"])
        .prefetch(NonZeroU16::MIN)
        .concurrency(2)
        .message_type("[")
        .handler(wants);
    let service = Service::new("a/b")
        .instance("x#y")
        .subscribe(broken)
        .subscribe(Subscription::per_service("empty", [""; 0]).handler(nothing));
    let (text, errors) = errors(service).await;
    assert_eq!(errors.len(), 9, "{text}");
    assert!(text.starts_with("the service is not configured correctly: "), "{text}");
    for part in [
        "the service \"a/b\" has a *, # or /, which have a meaning elsewhere",
        "the instance \"x#y\" has a *, # or /",
        "the subscription \"\" is empty",
        "\"order.[\"",
        "\"a..b\"",
        "the message-type filter \"[\" is no glob",
        "has a prefetch of 1 and a concurrency of 2",
        "takes State<u64>: give it to the service with .state(…) of type u64",
        "the subscription \"empty\" has no topic pattern; add one with .topics([…])",
    ] {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
}

#[tokio::test]
async fn a_service_without_a_subscription_is_told_so() {
    assert_eq!(
        error(Service::new("shop")).await,
        "the service \"shop\" has no subscription; add one with .subscribe(…)"
    );
}

#[tokio::test]
async fn two_subscriptions_of_one_name_are_told_since_they_would_share_a_queue() {
    let one = || Subscription::per_service("orders", ["order.*.*"]).handler(nothing);
    assert_eq!(
        error(with(one()).subscribe(one())).await,
        "two subscriptions are named \"orders\"; give one of them another name"
    );
}

#[tokio::test]
async fn headers_of_the_wire_format_cannot_be_passed_on() {
    let orders = || Subscription::per_service("orders", ["order.*.*"]).handler(nothing);
    for name in ["", "x-message-id", "x-mmate-attempts", "traceparent"] {
        assert_eq!(
            error(with(orders()).propagate_headers([name, "tenant"])).await,
            format!(
                "the header {name:?} cannot be passed on: a name has 1 to 255 bytes, and those of \
                 the wire format have a meaning of their own"
            )
        );
    }
}

#[tokio::test]
async fn a_concurrency_of_none_is_told() {
    let idle = Subscription::per_service("orders", ["order.*.*"]).concurrency(0).handler(nothing);
    assert_eq!(
        error(with(idle)).await,
        "the subscription \"orders\" has a concurrency of 0; it must be 1 at least"
    );
}

#[tokio::test]
async fn a_prefetch_below_the_concurrency_is_told_with_what_mends_it() {
    let narrow = Subscription::per_service("orders", ["order.*.*"])
        .prefetch(NonZeroU16::new(10).unwrap())
        .handler(nothing);
    assert_eq!(
        error(with(narrow)).await,
        "the subscription \"orders\" has a prefetch of 10 and a concurrency of 16; the handlers \
         above the prefetch would never have work: raise the prefetch"
    );
}

#[tokio::test]
async fn a_state_that_nobody_gave_is_told_and_a_state_that_was_given_is_found() {
    #[derive(Clone)]
    struct Rates;
    async fn wants(State(_): State<Rates>) -> Result<(), HandlerError> {
        Ok(())
    }
    let orders = || Subscription::per_service("orders", ["order.*.*"]).handler(wants);
    let told = error(with(orders())).await;
    assert!(told.starts_with("the handler of the subscription \"orders\" takes State<"), "{told}");
    assert!(told.contains("Rates>: give it to the service with .state(…) of type"), "{told}");
    let running = with(orders()).state(Rates).start(InProcess::new()).await.unwrap();
    running.stop().await.unwrap();
}

#[tokio::test]
async fn names_that_the_broker_keeps_for_itself_or_cannot_hold_are_told() {
    for (name, wrong) in [
        ("amq.orders".to_owned(), "begins with amq., which the broker keeps for itself"),
        ("x".repeat(201), "is longer than 200 bytes"),
        ("a\nb".to_owned(), "has a control character"),
    ] {
        let told = error(with(Subscription::shared(&*name).handler(nothing))).await;
        assert_eq!(told, format!("the queue {name:?} {wrong}"));
    }
}

#[test]
fn a_queue_is_named_after_what_shares_it() {
    let service = Service::new("shop")
        .instance("pod-7")
        .subscribe(Subscription::shared("order-processor").handler(nothing))
        .subscribe(Subscription::per_service("mail", ["order.*.*"]).handler(nothing))
        .subscribe(Subscription::per_instance("cache", ["price.#"]).handler(nothing));
    let queues: Vec<_> =
        service.topology().queues().iter().map(|q| (q.plan.name.clone(), q.plan.mode)).collect();
    assert_eq!(
        queues,
        [
            ("order-processor".to_owned(), QueueMode::Shared),
            ("shop.mail".to_owned(), QueueMode::PerService),
            ("shop.cache.pod-7".to_owned(), QueueMode::PerInstance),
        ]
    );
}

#[test]
fn an_event_pattern_of_three_words_is_a_subscription_named_after_it() {
    let service = Service::new("shop").subscribe_event_pattern("order", "*", "us-west", nothing);
    let topology = service.topology();
    let plan = &topology.queues()[0].plan;
    assert_eq!(plan.name, "shop.order.any.us-west");
    assert_eq!(plan.bindings[0].pattern.as_str(), "order.*.us-west");
    assert_eq!(plan.bindings[0].exchange, "mmate.events");
}

/// How each queue of a service is declared.
fn declared(service: &Service) -> Vec<Declare> {
    service.topology().queues().iter().map(|queue| queue.plan.declare).collect()
}

#[test]
fn what_is_declared_is_said_for_the_service_and_for_one_of_its_queues() {
    use Declare::{Create, LeaveAlone, Passive, Verify};
    let service = || {
        Service::new("shop")
            .subscribe(Subscription::shared("a").handler(nothing))
            .subscribe(Subscription::shared("b").passive().handler(nothing))
            .subscribe(Subscription::shared("c").declare(LeaveAlone).handler(nothing))
            .subscribe(Subscription::per_instance("d", ["x.#"]).handler(nothing))
    };
    assert_eq!(declared(&service()), [Create, Passive, LeaveAlone, Create]);
    // A queue per instance is not there before its instance.
    let verifying = service().declare(Verify);
    assert_eq!(declared(&verifying), [Verify, Passive, LeaveAlone, Create]);
}

/// S31
#[test]
fn an_overlap_is_told_with_a_topic_that_reaches_both() {
    let service = Service::new("shop")
        .subscribe(Subscription::per_service("orders", ["order.*.*"]).handler(nothing))
        .subscribe(Subscription::per_service("created", ["x.y", "*.created.*"]).handler(nothing))
        .subscribe(Subscription::per_service("paid", ["invoice.paid.*"]).handler(nothing))
        .subscribe(Subscription::shared("orders-too").commands_for("order").handler(nothing));
    let overlaps = service.overlaps();
    assert_eq!(overlaps.len(), 1, "{overlaps:?}");
    assert_eq!(
        overlaps[0].to_string(),
        "the topic order.created.x reaches both \"orders\" and \"created\": \
         each handles its own copy"
    );
}

struct Once;

#[async_trait]
impl Middleware for Once {
    async fn handle(&self, context: &mut Context, next: Next<'_>) -> Result<Outcome, HandlerError> {
        next.run(context).await
    }
}

impl Idempotency for Once {}

/// S31: what an overlap means depends on the scopes.
#[test]
fn an_overlap_within_one_scope_is_one_effect() {
    let subscription = |name: &str, scope: Scope| {
        Subscription::per_service(name, ["order.*.*"])
            .idempotent(Once)
            .scope(scope)
            .handler(nothing)
    };
    let one_effect = |first: Scope, second: Scope| {
        let service = with(subscription("a", first)).subscribe(subscription("b", second));
        service.overlaps()[0].one_effect
    };
    let named = |name: &str| Scope::Named(name.to_owned());
    assert!(one_effect(Scope::Service, Scope::Service));
    assert!(one_effect(named("x"), named("x")));
    assert!(!one_effect(named("x"), named("y")));
    assert!(!one_effect(Scope::Subscription, Scope::Subscription));
    assert!(!one_effect(Scope::Service, named("shop")));

    let unprotected =
        Subscription::per_service("b", ["order.#"]).scope(Scope::Service).handler(nothing);
    let service = with(subscription("a", Scope::Service)).subscribe(unprotected);
    assert!(!service.overlaps()[0].one_effect, "without a strategy nothing is suppressed");
}

#[tokio::test]
async fn priorities_are_for_queues_that_have_them() {
    let urgent = |kind| Subscription::shared("q").queue_kind(kind).max_priority(9).handler(nothing);
    let told = error(with(urgent(QueueKind::Quorum))).await;
    assert!(told.contains("\"q\"") && told.contains("QueueKind::Classic"), "{told}");
    let own = Subscription::per_instance("own", ["#"]).max_priority(9).handler(nothing);
    let none = Subscription::shared("none").max_priority(0).handler(nothing);
    let service = with(urgent(QueueKind::Classic)).subscribe(own).subscribe(none);
    let highest: Vec<_> = service.topology().queues().iter().map(|q| q.plan.max_priority).collect();
    assert_eq!(highest, [Some(9), Some(9), None]);
    service.start(InProcess::new()).await.unwrap().stop().await.unwrap();
}
