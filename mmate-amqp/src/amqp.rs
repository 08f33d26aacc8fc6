//! What a user sets, and the way in.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mmate_core::MadeQueue;
use mmate_core::transport::{
    Connection, Limits, QueuePlan, Transport, TransportError, TransportErrorKind,
};

use crate::address::Address;
use crate::connection::AmqpConnection;
use crate::link::{Dialer, Link, Role, Security};
use crate::settings::{Backoff, Settings};
#[cfg(feature = "tls")]
use crate::tls::{self, Tls};
use crate::topology::Rung;
use crate::{telemetry, topology};

/// A RabbitMQ broker, and how to treat it.
///
/// ```no_run
/// use std::time::Duration;
/// use mmate_amqp::Amqp;
///
/// let broker = Amqp::new("amqp://orders:secret@broker.example/production")
///     .heartbeat(Duration::from_secs(5))
///     .publish_window(200);
/// # let _ = broker;
/// ```
#[derive(Clone)]
#[must_use = "this connects when a service is run on it"]
pub struct Amqp {
    url: String,
    settings: Settings,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

impl Amqp {
    /// A broker by its URL: `amqp://user:password@host:port/virtual-host`, or `amqps://` with TLS.
    ///
    /// The parts after the host may be left out, and then are port 5672 (5671 with TLS) and the
    /// virtual host `/`. A virtual host's own slashes are written `%2f`; beware that `amqp://host/`
    /// names the virtual host with the empty name. Without a user it is `guest` with the password
    /// `guest`. Of the query, `heartbeat` (in seconds, before [`heartbeat`](Self::heartbeat)),
    /// `channel_max`, `frame_max` and `auth_mechanism` (`external` where the client certificate says
    /// who we are) are used.
    ///
    /// The nodes of a cluster are written with commas between them:
    ///
    /// ```no_run
    /// use mmate_amqp::Amqp;
    ///
    /// // AMQP_URL=amqp://orders:secret@rabbit-1,rabbit-2,rabbit-3:5673/production
    /// let broker = Amqp::new(std::env::var("AMQP_URL").expect("AMQP_URL is set"));
    /// # let _ = broker;
    /// ```
    ///
    /// Each attempt to connect tries them in random order, one after the other at once; only when
    /// none takes us there is a [pause](Self::reconnect_backoff). A node that was just lost comes
    /// last.
    ///
    /// What is wrong with the URL is told by [`connect`](Transport::connect), without repeating it.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            settings: Settings::default(),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Whom to trust over `amqps://`, and who we are; without it, the certificate authorities of
    /// the system are trusted. With an `amqp://` URL it is an error to set this.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// How often each side shows that it is alive, in whole seconds from 1; 10 s by default. A peer
    /// that is silent for twice as long is taken for dead.
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.settings.heartbeat = interval;
        self
    }

    /// How long a TCP connection may take to be made, TLS included; 5 s by default. The greeting
    /// after it has the [answer timeout](Self::answer_timeout).
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.settings.connect_timeout = limit;
        self
    }

    /// How long the broker may take to answer, such as to a declaration; 10 s by default. A
    /// connection on which it takes longer is given up and made anew.
    pub fn answer_timeout(mut self, limit: Duration) -> Self {
        self.settings.answer_timeout = limit;
        self
    }

    /// How many messages may be published and not yet confirmed at a time; 1,000 by default.
    /// Publishing waits while there are as many.
    pub fn publish_window(mut self, messages: u32) -> Self {
        self.settings.publish_window = messages;
        self
    }

    /// How long publishing a message may take in all, over any number of reconnects; 30 s by
    /// default. After that it fails with
    /// [`PublishError::Ambiguous`](mmate_core::PublishError::Ambiguous).
    pub fn publish_timeout(mut self, limit: Duration) -> Self {
        self.settings.publish_timeout = limit;
        self
    }

    /// How long it may take to put a message by that is to be retried, deferred or dead-lettered,
    /// over any number of attempts; 30 s by default. After that it goes back to its queue at once,
    /// and the settlement counts as lost.
    pub fn settle_timeout(mut self, limit: Duration) -> Self {
        self.settings.settle_timeout = limit;
        self
    }

    /// How long to wait before another attempt to connect: from `first`, doubling, to `longest`,
    /// each shortened at random by up to a half. By default from 100 ms to 3 s. The attempts never
    /// end, unless [`give_up_after`](Self::give_up_after) says so.
    pub fn reconnect_backoff(mut self, first: Duration, longest: Duration) -> Self {
        self.settings.reconnect = Backoff { first, longest };
        self
    }

    /// Ends the service with an error when there is no connection for so long; by default it waits
    /// for ever.
    ///
    /// Where something watches the process, it may do better with a new one: another machine, or
    /// another address. It counts from the moment a connection is lost, or from the begin of the
    /// first attempt, and over all attempts. Then [`connect`](Transport::connect) fails, or
    /// what consumes does, with [`TransportErrorKind::Unreachable`] and the reason of the last
    /// attempt, and [publishing](mmate_core::transport::Connection::publish) fails from then on.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use mmate_amqp::Amqp;
    ///
    /// let broker = Amqp::new("amqp://broker.example").give_up_after(Duration::from_secs(300));
    /// # let _ = broker;
    /// ```
    pub fn give_up_after(mut self, limit: Duration) -> Self {
        self.settings.give_up_after = Some(limit);
        self
    }

    /// How often a quorum queue that is made here shows a message before it gives it up to its
    /// dead-letter queue, if nobody settles it; 20 by default. This is what ends a message that
    /// crashes its process. Retries and deferrals do not count here: each is a message of its own
    /// to the queue.
    ///
    /// It is an argument of the queue: queues that exist with another one are a mismatch.
    pub fn delivery_limit(mut self, deliveries: u32) -> Self {
        self.settings.delivery_limit = deliveries;
        self
    }

    /// What the broker's `consumer_timeout` is: how long it waits for a delivery to be settled
    /// before it closes the channel and takes back what was delivered there; 30 min by default, as
    /// on the broker. A broker does not tell, so one with another value is told of here. A service
    /// whose handlers may run longer does not start.
    pub fn consumer_timeout(mut self, limit: Duration) -> Self {
        self.settings.consumer_timeout = limit;
        self
    }

    /// How many bytes the body of a message may have to be handled; 16 MiB by default, which is what
    /// RabbitMQ 4 takes at most (3.x takes 128 MiB). A service holds as many bodies as its
    /// [prefetch](mmate_core::SubscriptionBuilder::prefetch) at a time, and this bounds how large.
    ///
    /// A larger body is never held: it is skipped while it comes in, and the broker puts the message
    /// into the dead-letter queue, with the reason `rejected` in its `x-death` header. So this is for
    /// the quorum queues that are made here, which do that safely. Other queues (classic ones, those
    /// of one instance, those that are only used) would drop the message instead; there is no limit
    /// on them, and their messages are handled whatever their size.
    pub fn max_body_bytes(mut self, bytes: u64) -> Self {
        self.settings.max_body_bytes = bytes;
        self
    }

    /// How often exchanges, queues and bindings of a consumer are declared again, in case somebody
    /// has deleted them; 3 s by default. Declaring what is there changes nothing, and takes the
    /// broker about ten small requests.
    pub fn check_topology_every(mut self, interval: Duration) -> Self {
        self.settings.topology_check = interval;
        self
    }
}

impl Amqp {
    #[cfg(feature = "tls")]
    async fn security(&self, address: &Address) -> Result<Security, String> {
        match (address.is_secure(), &self.tls) {
            (true, tls) => {
                let client = tls::Client::new(tls.clone().unwrap_or_default()).await?;
                Ok(Security::Tls(Arc::new(client)))
            }
            (false, None) => Ok(Security::None),
            (false, Some(_)) => Err("TLS is set up, and the URL is an amqp:// one, which is in \
                                     clear text: write amqps://"
                .to_owned()),
        }
    }

    #[cfg(not(feature = "tls"))]
    #[expect(clippy::unused_async, reason = "it is with TLS")]
    async fn security(&self, _: &Address) -> Result<Security, String> {
        Ok(Security::None)
    }
}

#[async_trait]
impl Transport for Amqp {
    async fn connect(&self, service: &str) -> Result<Box<dyn Connection>, TransportError> {
        let unusable = |wrong: String| {
            let kind = TransportErrorKind::Configuration;
            TransportError::new(kind, "connect to RabbitMQ").caused_by(wrong)
        };
        let address = Address::parse(&self.url).map_err(unusable)?;
        self.settings.check().map_err(unusable)?;
        telemetry::describe();
        let security = self.security(&address).await.map_err(unusable)?;
        let dialer = Dialer {
            address,
            security,
            settings: Arc::new(self.settings.clone()),
            service: service.into(),
            role: Role::Publish,
            fate: Arc::default(),
        };
        // The other connection is made when something is declared or consumed.
        let publishing = Link::open(dialer.clone()).await?;
        let consuming = Dialer { role: Role::Consume, ..dialer };
        Ok(Box::new(AmqpConnection::new(publishing, consuming)))
    }

    fn describe(&self) -> String {
        match Address::parse(&self.url) {
            Ok(address) => address.to_string(),
            Err(_) => "amqp (with an unusable URL)".to_owned(),
        }
    }

    fn limits(&self) -> Limits {
        Limits::default()
            .delivery_timeout(self.settings.consumer_timeout)
            .delivery_limit(self.settings.delivery_limit)
            .longest_delay(Rung::longest().duration())
    }

    fn explain(&self, queue: &QueuePlan) -> Vec<MadeQueue> {
        topology::explain(queue, self.settings.delivery_limit)
    }
}

/// Without credentials.
impl fmt::Debug for Amqp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Amqp");
        shown.field("address", &self.describe()).field("settings", &self.settings);
        #[cfg(feature = "tls")]
        shown.field("tls", &self.tls);
        shown.finish()
    }
}
