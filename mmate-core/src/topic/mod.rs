//! Topics, and patterns over topics.
//!
//! A [`Topic`] is the concrete routing key a message is published with: words separated by dots, such as
//! `order.created.us-west`. A [`TopicPattern`] says which topics a subscription is for:
//!
//! | in a pattern | stands for |
//! |---|---|
//! | `order` | this word |
//! | `*` | exactly one word |
//! | `#` | any number of words, also none |
//! | `eu-*` | one word: within it, `*` is any run of characters, also none |
//! | `v?` | one word: within it, `?` is exactly one character |
//!
//! The first three are what a RabbitMQ topic exchange knows, and they mean here what they mean there. The last two it
//! does not know: [`binding_key`](TopicPattern::binding_key) is the nearest wider pattern that it does, and
//! [`matches`](TopicPattern::matches) tells which of the messages that arrive through it are really asked for.
//!
//! ```
//! use mmate_core::topic::{Topic, TopicPattern};
//!
//! let europe = TopicPattern::new("order.*.eu-*")?;
//! assert!(europe.matches("order.created.eu-west"));
//! assert!(!europe.matches("order.created.us-west"));
//! assert_eq!(europe.binding_key(), "order.*.*");
//!
//! // Two subscriptions that overlap both get some messages; this is one that they share.
//! let created = TopicPattern::new("*.created.#")?;
//! assert_eq!(europe.overlap_example(&created), Some(Topic::new("order.created.eu-x")?));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod glob;
mod key;
mod overlap;
mod pattern;
mod sequence;
mod table;
mod text;
mod word;

pub use self::error::{InvalidTopic, InvalidTopicPattern, TopicFault};
pub use self::key::Topic;
pub use self::pattern::TopicPattern;
pub use self::table::TopicTable;
