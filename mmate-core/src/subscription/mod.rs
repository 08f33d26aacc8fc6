//! Subscriptions: which messages a service takes, from which queue, and what handles them.

mod builder;
mod filter;
mod order;
mod plans;
mod replies;
mod retry;

pub use builder::{Subscription, SubscriptionBuilder};
pub use filter::InvalidTypeFilter;
pub(crate) use filter::TypeFilter;
pub use order::{MissingKey, OrderKey};
pub use retry::RetryPolicy;

use std::sync::Arc;

/// Within which an id stands for one effect.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Scope {
    /// The subscription: each handles every message once. The default. For a subscription per
    /// instance it includes the instance, since each has a copy of its own to handle.
    #[default]
    Subscription,
    /// The service: of several overlapping subscriptions, one handles a message.
    Service,
    /// A name of your own, shared by whoever uses it.
    Named(String),
}

impl Scope {
    /// The scope's text in a store. Names have no `/`, so the kinds cannot be mistaken for each
    /// other.
    pub(crate) fn text(
        &self,
        service: &str,
        subscription: &str,
        instance: Option<&str>,
    ) -> Arc<str> {
        match (self, instance) {
            (Self::Subscription, None) => format!("{service}/{subscription}").into(),
            (Self::Subscription, Some(instance)) => {
                format!("{service}/{subscription}/{instance}").into()
            }
            (Self::Service, _) => service.into(),
            (Self::Named(name), _) => format!("/{name}").into(),
        }
    }
}

/// Why a name cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the {what} {name:?} {wrong}")]
#[non_exhaustive]
pub struct InvalidName {
    /// What is named.
    pub what: &'static str,
    /// The name.
    pub name: String,
    /// What is wrong with it.
    pub wrong: &'static str,
}

/// Names become parts of queue names and routing keys, and of the scopes in a store. The limit
/// leaves room for `dlq.` and `.delay.86400000` within a queue name's 255 bytes.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<(), InvalidName> {
    let wrong = if name.is_empty() {
        "is empty"
    } else if name.len() > 200 {
        "is longer than 200 bytes"
    } else if name.starts_with("amq.") {
        "begins with amq., which the broker keeps for itself"
    } else if name.contains(['*', '#', '/']) {
        "has a *, # or /, which have a meaning elsewhere"
    } else if name.chars().any(char::is_control) {
        "has a control character"
    } else {
        return Ok(());
    };
    Err(InvalidName { what, name: name.to_owned(), wrong })
}
