//! Topics and their patterns.

use mmate_core::{Topic, TopicPattern};

/// The first line is a pattern, the second another one, the rest are topics.
pub(super) fn read(input: &[u8]) {
    let Some(lines) = super::lines(input) else { return };
    let patterns: Vec<_> =
        lines.iter().take(2).filter_map(|line| TopicPattern::new(*line).ok()).collect();
    let topics: Vec<_> = lines.iter().skip(2).filter_map(|line| Topic::new(*line).ok()).collect();
    for pattern in &patterns {
        let again = TopicPattern::new(pattern.to_string()).expect("what was written is readable");
        assert_eq!(again.as_str(), pattern.as_str());
        assert!(pattern.overlaps(pattern), "{pattern} and itself");
        let bound = TopicPattern::new(pattern.binding_key()).expect("a binding key is a pattern");
        for topic in &topics {
            let is_match = pattern.matches(topic.as_str());
            if !pattern.needs_filter() {
                assert_eq!(
                    is_match,
                    matches(&words(pattern.as_str()), &words(topic.as_str())),
                    "{pattern} {topic}"
                );
            }
            assert!(
                !is_match || bound.matches(topic.as_str()),
                "the broker keeps {topic} from {pattern}"
            );
        }
    }
    let [one, other] = &patterns[..] else { return };
    assert_eq!(one.overlaps(other), other.overlaps(one), "{one} and {other}");
    match one.overlap_example(other) {
        Some(example) => {
            assert!(
                one.matches(example.as_str()) && other.matches(example.as_str()),
                "{one} and {other}: {example}"
            );
        }
        None => {
            let both = topics
                .iter()
                .find(|topic| one.matches(topic.as_str()) && other.matches(topic.as_str()));
            assert_eq!(both, None, "{one} and {other}");
        }
    }
}

fn words(text: &str) -> Vec<&str> {
    text.split('.').collect()
}

/// AMQP 0-9-1's own definition: `*` is one word, `#` any number of them.
fn matches(pattern: &[&str], topic: &[&str]) -> bool {
    match (pattern, topic) {
        ([], []) => true,
        (["#", rest @ ..], _) => {
            matches(rest, topic) || (!topic.is_empty() && matches(pattern, &topic[1..]))
        }
        (["*", rest @ ..], [_, topic @ ..]) => matches(rest, topic),
        ([word, rest @ ..], [first, topic @ ..]) => word == first && matches(rest, topic),
        _ => false,
    }
}
