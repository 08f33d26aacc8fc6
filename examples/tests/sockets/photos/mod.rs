//! The example `photos`.

mod answers;
mod scene;
mod servers;
