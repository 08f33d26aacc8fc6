//! The example `chat`.

mod browser;
mod conversations;
mod groups;
mod kills;
mod merge;
mod messages;
mod scene;

pub(crate) use scene::name;
