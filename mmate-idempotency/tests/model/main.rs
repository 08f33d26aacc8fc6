//! A model of consumers, a broker and a store, explored as a whole within bounds.
//!
//! The store of the model runs the protocol's own function, [`step`], and its consumers take their
//! decisions by the functions that `Tracked` takes them by ([`Fate::of_claim`],
//! [`is_acknowledged`]); the world around them does everything it may: see [`moves::Move`].
//!
//! `docs/protocol.md` says what is explored, and what came of it.
//!
//! [`step`]: mmate_idempotency::protocol::step
//! [`Fate::of_claim`]: mmate_idempotency::protocol::Fate::of_claim
//! [`is_acknowledged`]: mmate_idempotency::protocol::is_acknowledged

mod broken;
mod explore;
mod moves;
mod rules;
mod sound;
mod store;
mod stuck;
mod tracked;
mod transaction;
mod turn;
mod world;
mod wrong;

use world::World;
