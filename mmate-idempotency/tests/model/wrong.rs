//! What must not happen, and what must be seen to happen.

use std::sync::atomic::{AtomicU32, Ordering};

use stateright::Property;

use super::World;
use super::moves::Consumers;

/// What must never happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Wrong {
    AckedWithoutEffect,
    AckedUndone,
    SecondEffect,
    EffectOutOfOrder,
    HolderRefused,
    TwoInside,
    TakenFromTheLiving,
    StaleChange,
    FenceFell,
    ForgotInProgress,
    InnocentDeadLetter,
}

macro_rules! never {
    ($($text:literal: $wrong:ident,)*) => {
        vec![$(Property::always($text, |_, world: &World| world.wrong != Some(Wrong::$wrong)),)*]
    };
}

/// What holds in every world.
pub(crate) fn properties() -> Vec<Property<Consumers>> {
    let mut properties = never! {
        "what is acknowledged has had its effect": AckedWithoutEffect,
        "what is acknowledged is done": AckedUndone,
        "a second effect has a documented reason": SecondEffect,
        "effects come in the order of their fences": EffectOutOfOrder,
        "who holds a claim is not refused its effect": HolderRefused,
        "nobody is granted what another holds": TwoInside,
        "nobody takes over from one who is alive and in time": TakenFromTheLiving,
        "who does not hold a record does not change it": StaleChange,
        "fences rise": FenceFell,
        "what is in progress is not forgotten": ForgotInProgress,
        "only failures and conflicts are dead letters": InnocentDeadLetter,
    };
    properties.push(Property::always("nothing is lost", |_, world: &World| {
        let is_accounted = || {
            let all = world.books.iter().zip(&world.queues);
            all.into_iter().all(|(book, queue)| book.effects > 0 || queue.dead > 0)
        };
        !world.is_quiet() || is_accounted()
    }));
    properties
}

/// What an exploration must come across, or it shows nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    Takeover,
    DuplicateSuppressed,
    Deferred,
    Conflict,
    LeaseLost,
    /// Who was overtaken is refused its completion, release or heartbeat.
    ZombieRefused,
    /// The fence keeps the effect of one who was overtaken out.
    EffectRefused,
    SecondEffect,
    RunAgainAfterWindow,
    /// A claim is granted to one who has given up waiting for the answer.
    GrantedToNobody,
    CommittedUnheard,
    UncommittedUnheard,
    Purged,
    Quiet,
}

/// Which of them were seen.
#[derive(Debug, Default)]
pub(crate) struct Sights(AtomicU32);

impl Sights {
    pub(crate) fn see(&self, sight: Sight) {
        self.0.fetch_or(1 << sight as u32, Ordering::Relaxed);
    }

    pub(crate) fn has(&self, sight: Sight) -> bool {
        self.0.load(Ordering::Relaxed) & (1 << sight as u32) != 0
    }
}
