//! Finding whom a topic is for.

use std::hint::black_box;
use std::time::Instant;

use mmate_core::topic::{TopicPattern, TopicTable};

use super::goal;
use crate::Result;
use crate::contest::{Case, Contender};
use crate::figures::{Figure, Sample};
use crate::goal::{Bound, Compare};
use crate::servers::Servers;

const LOOKUPS: u64 = 2_000_000;
const PATTERNS: usize = 1_000;

const TIME: Figure = "µs a topic";
const WORD: Figure = "µs a word";
const THREE: &str = "mmate, a table of 1,000 patterns, 3 words";
const TWELVE: &str = "mmate, a table of 1,000 patterns, 12 words";
const EACH: &str = "mmate, each of 1,000 patterns by itself";

pub(crate) fn case() -> Case {
    let table = |words: usize| {
        move |servers: Servers| async move {
            let mut table = TopicTable::new();
            for (at, pattern) in patterns(words)?.iter().enumerate() {
                table.insert(pattern, at);
            }
            measure(servers.messages(LOOKUPS), words, |topic| table.matches(topic).len())
        }
    };
    Case {
        name: "P12",
        curve: None,
        title: "routing to the patterns of 1,000 subscriptions",
        contenders: vec![
            Contender::new(THREE, table(3)),
            Contender::new(TWELVE, table(12)),
            Contender::new(EACH, |servers| async move {
                let patterns = patterns(3)?;
                let each = |topic: &str| patterns.iter().filter(|p| p.matches(topic)).count();
                measure(servers.messages(LOOKUPS / 100), 3, each)
            }),
        ],
        goals: vec![
            goal(
                "P12",
                "topics of three words",
                THREE,
                &[],
                TIME,
                Compare::Nothing,
                Bound::AtMost(1.0),
            ),
            goal(
                "P12",
                "a word of twelve beside one of three",
                TWELVE,
                &[THREE],
                WORD,
                Compare::Ratio,
                Bound::AtMost(1.25),
            ),
        ],
    }
}

/// Of four kinds: a topic, one word open, a part of a word open, and all that begins so.
fn patterns(words: usize) -> Result<Vec<TopicPattern>> {
    let tail = |last: &str| format!("{}.{last}", vec!["created"; words - 2].join("."));
    let pattern = |at: usize| {
        let entity = at / 4;
        match at % 4 {
            0 => format!("entity-{entity}.{}", tail("us-west")),
            1 => format!("entity-{entity}.{}", tail("*")),
            2 => format!("entity-{entity}.{}", tail("eu-*")),
            _ => format!("entity-{entity}.#"),
        }
    };
    (0..PATTERNS).map(|at| TopicPattern::new(pattern(at)).map_err(Into::into)).collect()
}

#[expect(clippy::cast_precision_loss, reason = "numbers of lookups")]
fn measure(lookups: u64, words: usize, found: impl Fn(&str) -> usize) -> Result<Sample> {
    let middle = vec!["created"; words - 2].join(".");
    let topics: Vec<_> =
        (0..PATTERNS / 4).map(|entity| format!("entity-{entity}.{middle}.us-west")).collect();
    let begin = Instant::now();
    let mut matches = 0;
    for topic in topics.iter().cycle().take(usize::try_from(lookups)?) {
        matches += found(black_box(topic));
    }
    let each = begin.elapsed().as_secs_f64() * 1e6 / lookups as f64;
    // The topic itself, the open word, and all of its entity.
    if matches as u64 != 3 * lookups {
        return Err(format!("{matches} matches of {lookups} topics").into());
    }
    Ok(Sample::default().with(TIME, each).with(WORD, each / words as f64))
}
