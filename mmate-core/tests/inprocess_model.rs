//! Random sequences of what connections and consumers may do, against a count of the messages.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::time::Duration;

use mmate_core::message::{Message, wire};
use mmate_core::transport::{
    Connection, Consumer, Delivery, Destination, Publication, QueueMode, QueuePlan, Settlement,
};
use mmate_core::{DeadReason, InProcess, Transport};
use proptest::prelude::*;

const QUEUE: &str = "q";
const CONNECTIONS: usize = 2;

#[derive(Debug, Clone)]
enum Step {
    Publish,
    /// The next delivery of a connection's consumer, if there is one at once.
    Take(usize),
    /// Settles one of the deliveries that are out.
    Settle(usize, How),
    /// Forgets one of them.
    Drop(usize),
    /// Ends a connection's consumer.
    Stop(usize),
    /// Closes a connection and makes a new one.
    Reconnect(usize),
    Cut,
    LoseAnAck,
    Wait(u64),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    Ack,
    Requeue,
    Retry(u64),
    Defer(u64),
    Bury,
}

fn step() -> impl Strategy<Value = Step> {
    let connection = 0..CONNECTIONS;
    let how = prop_oneof![
        3 => Just(How::Ack),
        1 => Just(How::Requeue),
        2 => (0..50_u64).prop_map(How::Retry),
        2 => (0..50_u64).prop_map(How::Defer),
        1 => Just(How::Bury),
    ];
    prop_oneof![
        6 => Just(Step::Publish),
        6 => connection.clone().prop_map(Step::Take),
        5 => (any::<usize>(), how).prop_map(|(which, how)| Step::Settle(which, how)),
        1 => any::<usize>().prop_map(Step::Drop),
        1 => connection.clone().prop_map(Step::Stop),
        1 => connection.prop_map(Step::Reconnect),
        1 => Just(Step::Cut),
        1 => Just(Step::LoseAnAck),
        2 => (0..60_u64).prop_map(Step::Wait),
    ]
}

/// What a message should say of itself.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Expected {
    attempts: u32,
    deferrals: u32,
    shown: bool,
    finished: bool,
}

struct Side {
    connection: Box<dyn Connection>,
    consumer: Option<Box<dyn Consumer>>,
}

struct World {
    broker: InProcess,
    sides: Vec<Side>,
    out: Vec<Delivery>,
    messages: HashMap<String, Expected>,
}

fn id(delivery: &Delivery) -> String {
    delivery.message.properties.message_id.clone().unwrap()
}

impl World {
    async fn new() -> Self {
        let broker = InProcess::new();
        let mut world =
            Self { broker, sides: Vec::new(), out: Vec::new(), messages: HashMap::new() };
        for _ in 0..CONNECTIONS {
            let side = world.side().await;
            world.sides.push(side);
        }
        world
    }

    async fn side(&self) -> Side {
        let connection = self.broker.connect("model").await.unwrap();
        let plan = QueuePlan::new(QUEUE, QueueMode::Shared);
        connection.declare(&plan).await.unwrap();
        let consumer = Some(connection.consume(&plan, 3).await.unwrap());
        Side { connection, consumer }
    }

    async fn take(&mut self, side: usize) -> bool {
        let Some(consumer) = &mut self.sides[side].consumer else { return false };
        let next = tokio::time::timeout(Duration::ZERO, consumer.next()).await;
        let Ok(next) = next else { return false };
        let delivery = next.expect("the consumer goes on").unwrap();
        let expected = self.messages.get_mut(&id(&delivery)).expect("it was published");
        assert!(!expected.finished, "what is settled for good is not shown again");
        assert_eq!(delivery.failed_attempts, expected.attempts);
        assert_eq!(delivery.deferrals, expected.deferrals);
        assert!(delivery.redelivered || !expected.shown);
        assert_eq!((&*delivery.exchange, &*delivery.routing_key), ("", QUEUE));
        expected.shown = true;
        self.out.push(delivery);
        true
    }

    async fn settle(&mut self, which: usize, how: How) {
        if self.out.is_empty() {
            return;
        }
        let delivery = self.out.swap_remove(which % self.out.len());
        let id = id(&delivery);
        let settlement = match how {
            How::Ack => Settlement::Ack,
            How::Requeue => Settlement::Requeue,
            How::Retry(ms) => {
                Settlement::Retry { after: Duration::from_millis(ms), error: "e".to_owned() }
            }
            How::Defer(ms) => Settlement::Defer { after: Duration::from_millis(ms) },
            How::Bury => {
                let letter = mmate_core::DeadLetter::new(DeadReason::Handler, "d");
                Settlement::DeadLetter { letter, attempts: 1 }
            }
        };
        if delivery.settle(settlement).await.is_lost() {
            return;
        }
        let expected = self.messages.get_mut(&id).unwrap();
        match how {
            How::Ack | How::Bury => expected.finished = true,
            How::Requeue => {}
            How::Retry(_) => (expected.attempts, expected.shown) = (expected.attempts + 1, false),
            How::Defer(_) => (expected.deferrals, expected.shown) = (expected.deferrals + 1, false),
        }
    }

    async fn run(&mut self, step: Step) {
        match step {
            Step::Publish => {
                let id = self.messages.len().to_string();
                let mut message = Message::new(id.clone());
                message.properties.message_id = Some(id.clone());
                self.messages.insert(id, Expected::default());
                let publication = Publication::new(Destination::Queue(QUEUE.to_owned()), message);
                self.sides[0].connection.publish(publication).await.unwrap();
            }
            Step::Take(side) => {
                self.take(side).await;
            }
            Step::Settle(which, how) => self.settle(which, how).await,
            Step::Drop(which) if !self.out.is_empty() => {
                drop(self.out.swap_remove(which % self.out.len()));
            }
            Step::Drop(_) => {}
            Step::Stop(side) => {
                if let Some(mut consumer) = self.sides[side].consumer.take() {
                    consumer.stop().await;
                    assert!(consumer.next().await.is_none());
                }
            }
            Step::Reconnect(side) => {
                self.sides[side].connection.close().await;
                self.sides[side] = self.side().await;
            }
            Step::Cut => self.broker.cut(),
            Step::LoseAnAck => self.broker.drop_next_acks(1),
            Step::Wait(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        }
    }

    /// Nothing is lost and nothing is doubled, at any moment.
    fn check(&self) {
        let state = self.broker.queue(QUEUE).unwrap();
        let unfinished = self.messages.values().filter(|message| !message.finished).count();
        assert_eq!(state.ready + state.unacked + state.delayed, unfinished, "{state:?}");
    }

    /// What is left comes out, each message once.
    async fn finish(mut self) {
        self.broker.drop_next_acks(0);
        self.out.clear();
        for side in 0..CONNECTIONS {
            self.sides[side].connection.close().await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.sides[0] = self.side().await;
        while self.take(0).await {
            self.settle(0, How::Ack).await;
        }
        assert!(self.messages.values().all(|message| message.finished), "{:?}", self.messages);
        for letter in self.broker.dead_letters(QUEUE) {
            assert_eq!(letter.headers.text(wire::QUEUE), Some(QUEUE));
        }
    }
}

proptest! {
    #[test]
    fn no_message_is_lost_or_doubled_by_any_sequence_of_steps(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            for step in steps {
                world.run(step).await;
                world.check();
            }
            world.finish().await;
        });
    }
}
