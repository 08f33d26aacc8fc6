//! A connection is lost while a handler ends, in every order that shuttle finds.

use std::sync::atomic::Ordering;

use async_trait::async_trait;
use shuttle::thread;

use super::*;
use crate::message::Message;
use crate::sync::AtomicBool;
use crate::transport::{Settle, Settled, Settlement};

const ORDERS: usize = 5_000;

struct Through(Arc<AtomicBool>);

#[async_trait]
impl Settle for Through {
    async fn settle(self: Box<Self>, _: Settlement) -> Settled {
        Settled::Lost { reason: String::new() }
    }

    fn is_lost(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

fn delivery(connection: &Arc<AtomicBool>, redelivered: bool) -> Delivery {
    let settle = Box::new(Through(Arc::clone(connection)));
    let mut delivery = Delivery::new(Message::new("body"), "queue", settle);
    delivery.redelivered = redelivered;
    delivery
}

/// S5: however the end of a handler and the loss of its connection meet, the redelivery of a message that was handled to
/// its end is not handled again if the handler knew that its delivery was lost, and exactly one settles what is alive.
#[test]
fn a_redelivery_meets_the_end_of_its_handler() {
    let body = || {
        let (at_work, id) = (AtWork::new(4), MessageId::parse("m").unwrap());
        let (old, new) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let payload = Bytes::from_static(b"body");
        let TakenUp::New(at_hand) = at_work.take_up(Some(&id), &payload, delivery(&old, false))
        else {
            panic!("it is new");
        };
        let handler = thread::spawn(move || {
            let settles = at_hand.end(true);
            (settles.redelivered, settles.is_lost())
        });
        old.store(true, Ordering::SeqCst);
        let taken_up = at_work.take_up(Some(&id), &payload, delivery(&new, true));
        let (settles_new, was_lost) = handler.join().unwrap();
        match taken_up {
            TakenUp::Adopted => assert!(settles_new && !was_lost, "the handler settles what came"),
            TakenUp::Finished(delivery) => assert!(!settles_new && !delivery.is_lost()),
            // The handler ended before the loss, and settles a delivery that was alive then.
            TakenUp::New(_) => assert!(!settles_new),
        }
    };
    shuttle::check_random(body, ORDERS);
    shuttle::check_pct(body, ORDERS, 3);
}

/// S5: of two redeliveries of one message, over two lost connections, the handler settles the last.
#[test]
fn two_connections_are_lost_one_after_the_other() {
    let body = || {
        let (at_work, id) = (AtWork::new(4), MessageId::parse("m").unwrap());
        let lost = [(); 3].map(|()| Arc::new(AtomicBool::new(false)));
        let payload = Bytes::from_static(b"body");
        let TakenUp::New(at_hand) = at_work.take_up(Some(&id), &payload, delivery(&lost[0], false))
        else {
            panic!("it is new");
        };
        let handled = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&handled);
        let handler = thread::spawn(move || {
            let settles = at_hand.end(true);
            ended.store(true, Ordering::SeqCst);
            drop(settles);
        });
        let mut adopted = 0;
        for at in 1..=2 {
            lost[at - 1].store(true, Ordering::SeqCst);
            match at_work.take_up(Some(&id), &payload, delivery(&lost[at], true)) {
                TakenUp::Adopted => {
                    assert!(adopted == at - 1, "nobody adopts after the end");
                    adopted += 1;
                }
                TakenUp::Finished(_) | TakenUp::New(_) => break,
            }
        }
        handler.join().unwrap();
        assert!(handled.load(Ordering::SeqCst) && at_work.lists().running.is_empty());
    };
    shuttle::check_random(body, ORDERS);
    shuttle::check_pct(body, ORDERS, 3);
}
