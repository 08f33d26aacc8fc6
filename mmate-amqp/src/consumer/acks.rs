//! Which deliveries of a channel are acknowledged, and with how few frames.
//!
//! One frame can acknowledge everything up to a delivery. That is a saving for us and for the
//! broker, and it is right only as long as all before it is finished: a [`Window`] knows.

use std::collections::VecDeque;

/// The deliveries of a channel that are not settled yet, in their order.
#[derive(Debug)]
pub(super) struct Window {
    open: VecDeque<Open>,
    /// The number that the next delivery has.
    next: u64,
    /// Of `open`, how many the broker is yet to be told of.
    waiting: usize,
    /// Of `open`, how many are settled already.
    settled: usize,
    /// As many of those that are finished out of order may wait for those before them.
    most_held: usize,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    tag: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is out, or nobody knows.
    Out,
    /// It may be acknowledged.
    Finished,
    /// It goes back to the queue: it was fetched and not used.
    Unused,
    /// The broker was told of it alone.
    Settled,
}

/// What is yet to be said to the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Frame {
    Ack { tag: u64, multiple: bool },
    GiveBack { tag: u64, multiple: bool },
}

/// How much of what is not in order yet may wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// What the window allows.
    Some,
    /// Nothing.
    None,
}

impl Window {
    /// Of a consumer that holds so many deliveries at the most.
    pub(super) fn new(prefetch: u16) -> Self {
        Self {
            open: VecDeque::new(),
            // Numbers count from 1 on each channel (AMQP 0-9-1, 4.7).
            next: 1,
            waiting: 0,
            settled: 0,
            // A broker that waits for acknowledgements sends nothing: most of what it may send
            // must not depend on what is held here.
            most_held: usize::from(prefetch) / 4,
        }
    }

    /// A delivery is given out.
    pub(super) fn shown(&mut self, tag: u64) {
        self.append(tag, State::Out);
    }

    /// No more deliveries come, and these were not given out. They go back.
    pub(super) fn drain(&mut self, unused: &[u64]) {
        self.most_held = usize::MAX;
        for tag in unused {
            self.append(*tag, State::Unused);
        }
        self.waiting += unused.len();
    }

    /// Whether no more deliveries come.
    pub(super) fn is_draining(&self) -> bool {
        self.most_held == usize::MAX
    }

    fn append(&mut self, tag: u64, state: State) {
        if tag < self.next {
            return;
        }
        if tag > self.next {
            // Nothing is known of those between, so nothing is said for them.
            self.open.push_back(Open { tag: self.next, state: State::Out });
        }
        self.open.push_back(Open { tag, state });
        self.next = tag + 1;
    }

    /// A delivery is finished. Returns whether that is a reason to [`take`](Self::take).
    pub(super) fn finished(&mut self, tag: u64) -> bool {
        let Some(at) = self.find(tag) else { return false };
        self.open[at].state = State::Finished;
        self.waiting += 1;
        at == 0 || self.waiting == 1 || self.waiting > self.most_held
    }

    /// The broker was told of a delivery alone.
    pub(super) fn settled(&mut self, tag: u64) {
        if let Some(at) = self.find(tag) {
            self.settle(at);
        }
    }

    /// One that is out.
    fn find(&self, tag: u64) -> Option<usize> {
        let at = self.open.binary_search_by_key(&tag, |open| open.tag).ok()?;
        (self.open[at].state == State::Out).then_some(at)
    }

    fn settle(&mut self, at: usize) {
        self.open[at].state = State::Settled;
        self.settled += 1;
    }

    /// What is to be said to the broker now, and taken for said. Returns whether anything waits.
    pub(super) fn take(&mut self, hold: Hold, mut say: impl FnMut(Frame)) -> bool {
        self.take_front(&mut say);
        if hold == Hold::None || self.waiting > self.most_held {
            self.take_scattered(&mut say);
        }
        self.tidy();
        self.waiting > 0
    }

    /// What is finished and has nothing before it that is not; and what is unused behind that, if
    /// it is the rest.
    fn take_front(&mut self, say: &mut impl FnMut(Frame)) {
        let (mut last, mut count) = (0, 0);
        while let Some(open) = self.open.front() {
            match open.state {
                State::Finished => (last, count) = (open.tag, count + 1),
                State::Settled => self.settled -= 1,
                State::Out | State::Unused => break,
            }
            self.open.pop_front();
        }
        self.waiting -= count;
        if count > 0 {
            say(Frame::Ack { tag: last, multiple: count > 1 });
        }
        let is_the_rest = self.is_draining() && self.waiting == self.open.len();
        if let Some(Open { tag, state: State::Unused }) = self.open.back().copied()
            && is_the_rest
            && self.open[0].state == State::Unused
        {
            say(Frame::GiveBack { tag, multiple: self.waiting > 1 });
            self.open.clear();
            self.waiting = 0;
        }
    }

    fn take_scattered(&mut self, say: &mut impl FnMut(Frame)) {
        for at in 0..self.open.len() {
            let Open { tag, state } = self.open[at];
            match state {
                State::Finished => say(Frame::Ack { tag, multiple: false }),
                State::Unused => say(Frame::GiveBack { tag, multiple: false }),
                State::Out | State::Settled => continue,
            }
            self.settle(at);
        }
        self.waiting = 0;
    }

    /// One delivery that takes its time must not keep all behind it in memory.
    fn tidy(&mut self) {
        if self.settled > self.open.len() / 2 && self.settled > 64 {
            self.open.retain(|open| open.state != State::Settled);
            self.settled = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn frames(window: &mut Window, hold: Hold) -> Vec<Frame> {
        let mut frames = Vec::new();
        window.take(hold, |frame| frames.push(frame));
        frames
    }

    fn ack(tag: u64, multiple: bool) -> Frame {
        Frame::Ack { tag, multiple }
    }

    #[test]
    fn what_is_finished_in_order_is_one_frame() {
        let mut window = Window::new(100);
        (1..=5).for_each(|tag| window.shown(tag));
        assert_eq!([1, 2, 3].map(|tag| window.finished(tag)), [true, false, false]);
        assert_eq!(frames(&mut window, Hold::Some), [ack(3, true)]);
        window.finished(4);
        assert_eq!(frames(&mut window, Hold::Some), [ack(4, false)]);
        assert!(frames(&mut window, Hold::None).is_empty());
    }

    #[test]
    fn what_is_finished_out_of_order_waits_for_those_before_it_but_not_for_long() {
        let mut window = Window::new(12);
        (1..=8).for_each(|tag| window.shown(tag));
        for tag in [3, 4] {
            window.finished(tag);
        }
        assert!(frames(&mut window, Hold::Some).is_empty());
        for tag in [1, 2] {
            window.finished(tag);
        }
        assert_eq!(frames(&mut window, Hold::Some), [ack(4, true)]);
        window.finished(6);
        assert_eq!(frames(&mut window, Hold::None), [ack(6, false)]);
        assert_eq!([7, 8].map(|tag| window.finished(tag)), [true, false]);
        window.finished(5);
        assert_eq!(frames(&mut window, Hold::Some), [ack(8, true)]);
    }

    #[test]
    fn no_more_than_a_quarter_of_the_prefetch_waits() {
        let mut window = Window::new(8);
        (1..=8).for_each(|tag| window.shown(tag));
        assert_eq!([5, 6, 7].map(|tag| window.finished(tag)), [true, false, true]);
        assert_eq!(frames(&mut window, Hold::Some), [5, 6, 7].map(|tag| ack(tag, false)));
    }

    #[test]
    fn what_was_not_used_goes_back_in_one_frame_when_all_before_it_is_finished() {
        let mut window = Window::new(8);
        (1..=3).for_each(|tag| window.shown(tag));
        window.drain(&[4, 5]);
        for tag in [1, 3] {
            window.finished(tag);
        }
        assert_eq!(frames(&mut window, Hold::Some), [ack(1, false)]);
        window.finished(2);
        let back = Frame::GiveBack { tag: 5, multiple: true };
        assert_eq!(frames(&mut window, Hold::Some), [ack(3, true), back]);
    }

    #[test]
    fn a_delivery_that_nobody_told_of_is_not_acknowledged_with_others() {
        let mut window = Window::new(8);
        for tag in [1, 3] {
            window.shown(tag);
        }
        for tag in [1, 3] {
            window.finished(tag);
        }
        assert_eq!(frames(&mut window, Hold::None), [ack(1, false), ack(3, false)]);
    }

    #[test]
    fn one_that_takes_its_time_keeps_little_in_memory() {
        let mut window = Window::new(8);
        window.shown(1);
        for tag in 2..100_000 {
            window.shown(tag);
            window.finished(tag);
            frames(&mut window, Hold::None);
        }
        assert!(window.open.len() < 200, "{}", window.open.len());
    }

    /// What happens to a window.
    #[derive(Debug, Clone)]
    enum Step {
        Show,
        Finish(prop::sample::Index),
        Reject(prop::sample::Index),
        Take,
        TakeAll,
    }

    fn step() -> impl Strategy<Value = Step> {
        let any = any::<prop::sample::Index>;
        prop_oneof![
            4 => Just(Step::Show),
            4 => any().prop_map(Step::Finish),
            1 => any().prop_map(Step::Reject),
            1 => Just(Step::Take),
            1 => Just(Step::TakeAll),
        ]
    }

    /// What a broker thinks.
    #[derive(Default)]
    struct Broker {
        unacknowledged: BTreeSet<u64>,
        acknowledged: BTreeSet<u64>,
        given_back: BTreeSet<u64>,
    }

    impl Broker {
        fn hear(&mut self, frame: Frame) {
            let (Frame::Ack { tag, multiple } | Frame::GiveBack { tag, multiple }) = frame;
            assert!(self.unacknowledged.contains(&tag), "{frame:?} closes the channel");
            let of_it = |t: &u64| if multiple { *t <= tag } else { *t == tag };
            let told: Vec<_> = self.unacknowledged.iter().copied().filter(of_it).collect();
            for tag in told {
                self.unacknowledged.remove(&tag);
                match frame {
                    Frame::Ack { .. } => self.acknowledged.insert(tag),
                    Frame::GiveBack { .. } => self.given_back.insert(tag),
                };
            }
        }
    }

    proptest! {
        /// S50. And each is acknowledged once, in the end, and nothing is both.
        #[test]
        fn what_is_acknowledged_is_what_is_finished(
            steps in prop::collection::vec(step(), 0..200),
            unused in 0_u64..10,
            prefetch in 1_u16..40,
        ) {
            let (mut window, mut broker) = (Window::new(prefetch), Broker::default());
            let (mut shown, mut out) = (0, Vec::new());
            let mut finished = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Show => {
                        shown += 1;
                        broker.unacknowledged.insert(shown);
                        window.shown(shown);
                        out.push(shown);
                    }
                    Step::Finish(at) if !out.is_empty() => {
                        let tag = out.swap_remove(at.index(out.len()));
                        finished.insert(tag);
                        if window.finished(tag) {
                            window.take(Hold::Some, |frame| broker.hear(frame));
                        }
                    }
                    Step::Reject(at) if !out.is_empty() => {
                        let tag = out.swap_remove(at.index(out.len()));
                        broker.unacknowledged.remove(&tag);
                        window.settled(tag);
                    }
                    Step::Finish(_) | Step::Reject(_) => {}
                    Step::Take => drop(window.take(Hold::Some, |frame| broker.hear(frame))),
                    Step::TakeAll => {
                        prop_assert!(!window.take(Hold::None, |frame| broker.hear(frame)));
                        prop_assert_eq!(&broker.acknowledged, &finished);
                    }
                }
                prop_assert!(broker.acknowledged.is_subset(&finished));
                let held = finished.len() - broker.acknowledged.len();
                prop_assert_eq!(held, window.waiting);
            }
            let unused: Vec<_> = (shown + 1..=shown + unused).collect();
            broker.unacknowledged.extend(&unused);
            window.drain(&unused);
            window.take(Hold::Some, |frame| broker.hear(frame));
            prop_assert!(broker.acknowledged.is_subset(&finished));
            prop_assert!(!window.take(Hold::None, |frame| broker.hear(frame)));
            prop_assert_eq!(&broker.acknowledged, &finished);
            prop_assert_eq!(broker.given_back, unused.into_iter().collect());
            prop_assert_eq!(broker.unacknowledged, out.into_iter().collect());
        }
    }
}
