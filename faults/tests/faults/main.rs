//! Faults F2 to F52, each with the time that it takes to recover. `scripts/faults` runs them and prints the times.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod alarms;
mod bodies;
mod broker;
mod channels;
mod checker;
mod letters;
mod network;
mod poison;
mod processes;
mod upgrade;

use std::sync::Arc;

use mmate_faults::{Proxy, Scene, Shop};
use mmate_test_support::{RabbitMq, RabbitMqOptions, amqp_url, unique};

/// A broker of the test's own, to do harm to.
struct Broker(Option<Arc<RabbitMq>>);

impl Broker {
    async fn start() -> Self {
        Self::with(RabbitMq::options()).await
    }

    async fn with(options: RabbitMqOptions) -> Self {
        Self(Some(blocking(move || Arc::new(options.start().unwrap())).await))
    }

    fn get(&self) -> &Arc<RabbitMq> {
        self.0.as_ref().unwrap()
    }

    fn url(&self) -> String {
        self.get().url()
    }

    /// Runs `rabbitmqctl`.
    async fn ctl(&self, arguments: &[&str]) -> String {
        let broker = Arc::clone(self.get());
        let arguments: Vec<_> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        blocking(move || {
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            broker.ctl(&arguments).unwrap()
        })
        .await
    }

    /// Does something to it that takes its time.
    async fn suffer(&mut self, harm: impl FnOnce(&mut RabbitMq) + Send + 'static) {
        let mut broker = Arc::into_inner(self.0.take().unwrap()).unwrap();
        let harmed = blocking(move || {
            harm(&mut broker);
            Arc::new(broker)
        });
        self.0 = Some(harmed.await);
    }

    async fn end(mut self) {
        let broker = self.0.take();
        blocking(move || drop(broker)).await;
    }
}

async fn blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// On the broker of all tests.
async fn on_shared_broker(name: &str) -> Scene {
    let url = amqp_url();
    Scene::new(unique(name), &url, &url).await
}

/// On the broker of all tests, by way of a proxy of the test's own.
async fn behind_proxy(name: &str) -> (Scene, Proxy) {
    let proxy = Proxy::before(&amqp_url()).await;
    (Scene::new(unique(name), &proxy.url(), &amqp_url()).await, proxy)
}

/// The same service under another name.
fn instance(shop: &Shop, name: &str) -> Shop {
    let mut shop = shop.clone();
    shop.instance = name.to_owned();
    shop
}
