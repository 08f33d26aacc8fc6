//! What a service is told about itself.

use mmate_core::{InProcess, Service, Subscription};
use mmate_idempotency::{MemoryStore, Tracked};

/// The lines are: the service's name, the instance's, a queue's, a subscription's, a filter of message types, and
/// patterns. It starts with them, or says what is wrong; and it draws what it would declare.
pub(super) fn read(input: &[u8]) {
    let Some(lines) = super::lines(input) else { return };
    let [service, instance, queue, name, filter, patterns @ ..] = &lines[..] else { return };
    let handler = async || Ok::<(), mmate_core::HandlerError>(());
    let tracked = Tracked::new(MemoryStore::new());
    let make = || {
        Service::new(*service)
            .instance(*instance)
            .subscribe(Subscription::shared(*queue).message_type(filter).handler(handler))
            .subscribe(
                Subscription::per_service(*name, patterns.iter().copied())
                    .idempotent(tracked.clone())
                    .handler(handler),
            )
            .subscribe(Subscription::per_instance(*name, patterns.iter().copied()).handler(handler))
    };
    let _ = make().topology().to_string();
    let _ = make().overlaps();
    super::service::block_on(async {
        match make().start(InProcess::new()).await {
            Ok(running) => running.stop().await.expect("it stops"),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    });
}
