//! Topics and patterns against simple models of what they should do, and against what RabbitMQ did.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use mmate_core::topic::{Topic, TopicPattern};
use proptest::prelude::*;

/// A hundred times what any of these takes, for the sake of busy machines; an exponential search would take ages. (That
/// the number of steps is as promised is tested where they can be counted, next to the search itself.)
const PATIENCE: Duration = Duration::from_secs(60);

const PATTERN_WORDS: [&str; 12] =
    ["a", "b", "ab", "*", "#", "#", "a*", "*b", "?", "??", "a?", "*a*"];

fn pattern(text: &str) -> TopicPattern {
    TopicPattern::new(text).expect("the test means a pattern")
}

/// All sequences of `lengths` words, joined with dots.
fn all_texts(words: &[&str], lengths: std::ops::RangeInclusive<u32>) -> Vec<String> {
    let mut texts = Vec::new();
    let mut longest = vec![String::new()];
    for length in 1..=*lengths.end() {
        let dot = if length == 1 { "" } else { "." };
        longest = longest
            .iter()
            .flat_map(|start| words.iter().map(move |word| format!("{start}{dot}{word}")))
            .collect();
        if lengths.contains(&length) {
            texts.extend(longest.iter().cloned());
        }
    }
    texts
}

/// What a pattern means, in so many words: tries everything.
mod reference {
    pub(crate) fn matches(pattern: &str, key: &str) -> bool {
        let pattern: Vec<_> = pattern.split('.').collect();
        let key: Vec<_> = if key.is_empty() { vec![] } else { key.split('.').collect() };
        words(&pattern, &key)
    }

    fn words(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern.split_first(), key.split_first()) {
            (None, None) => true,
            (None, Some(_)) => false,
            (Some((&"#", rest)), _) => (0..=key.len()).any(|taken| words(rest, &key[taken..])),
            (Some(_), None) => false,
            (Some((first, rest)), Some((word, others))) => {
                let first_matches = *first == "*" || {
                    let first: Vec<_> = first.chars().collect();
                    let word: Vec<_> = word.chars().collect();
                    characters(&first, &word)
                };
                first_matches && words(rest, others)
            }
        }
    }

    fn characters(pattern: &[char], word: &[char]) -> bool {
        match (pattern.split_first(), word.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), _) => {
                (0..=word.len()).any(|taken| characters(rest, &word[taken..]))
            }
            (Some((first, rest)), Some((character, others))) => {
                (*first == '?' || first == character) && characters(rest, others)
            }
            _ => false,
        }
    }
}

/// All topics of up to four words of up to two letters: what two patterns of up to three [`PATTERN_WORDS`] share, if
/// anything, shows in the shortest of these. (A shared topic needs no word that neither asks for. Without a `#` there
/// are three of those at most, and with one on each side two on each.)
static TOPICS: LazyLock<Vec<String>> =
    LazyLock::new(|| all_texts(&["a", "b", "aa", "ab", "ba", "bb"], 1..=4));

fn short_pattern() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&PATTERN_WORDS), 1..=3)
        .prop_map(|words| words.join("."))
}

fn any_pattern() -> impl Strategy<Value = String> {
    let words = prop::sample::select(&PATTERN_WORDS);
    prop_oneof![
        prop::collection::vec(words, 1..=7).prop_map(|words| words.join(".")),
        "[abé*?#.]{1,12}".prop_filter("a pattern", |text| TopicPattern::new(text).is_ok()),
    ]
}

fn any_key() -> impl Strategy<Value = String> {
    let words = prop::sample::select(&["", "a", "b", "ab", "ba", "aab", "é", "*", "#"]);
    prop_oneof![
        prop::collection::vec(words, 0..=7).prop_map(|words| words.join(".")),
        "[abé.]{0,12}",
    ]
}

/// A pattern, and a key that it probably matches: made from it word by word, some of them spoiled.
fn pattern_and_key() -> impl Strategy<Value = (String, String)> {
    let taken = prop::collection::vec(prop::sample::select(&["a", "b", "ab", "é", ""]), 0..=3);
    let word = (prop::sample::select(&PATTERN_WORDS), taken, prop::bool::weighted(0.05));
    prop::collection::vec(word, 1..=9).prop_map(|words| {
        let (mut pattern, mut key) = (Vec::new(), Vec::new());
        for (word, taken, spoiled) in words {
            pattern.push(word);
            match word {
                _ if spoiled => key.push("c".into()),
                "#" => key.extend(taken.iter().map(ToString::to_string)),
                _ => key.push(word.replace('*', &taken.concat()).replace('?', "b")),
            }
        }
        (pattern.join("."), key.join("."))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn a_pattern_matches_what_its_definition_says(
        (text, key) in prop_oneof![(any_pattern(), any_key()), pattern_and_key()],
    ) {
        prop_assert_eq!(pattern(&text).matches(&key), reference::matches(&text, &key));
    }

    #[test]
    fn a_binding_key_lets_all_through_that_the_pattern_matches(
        text in any_pattern(),
        key in any_key(),
    ) {
        let narrow = pattern(&text);
        let bound = narrow.binding_key();
        let wide = pattern(&bound);
        prop_assert!(!wide.needs_filter());
        prop_assert_eq!(narrow.needs_filter(), bound != text);
        prop_assert!(!narrow.matches(&key) || wide.matches(&key));
    }

    #[test]
    fn an_example_matches_both_patterns_and_exists_if_they_overlap(
        left in any_pattern(),
        right in any_pattern(),
    ) {
        let (left, right) = (pattern(&left), pattern(&right));
        let example = left.overlap_example(&right);
        prop_assert_eq!(left.overlaps(&right), example.is_some());
        prop_assert_eq!(right.overlaps(&left), example.is_some());
        prop_assert!(left.overlaps(&left));
        if let Some(topic) = example {
            prop_assert!(left.matches(topic.as_str()) && right.matches(topic.as_str()));
            prop_assert_eq!(Topic::new(topic.as_str()), Ok(topic));
        }
    }

    #[test]
    fn patterns_that_match_the_same_topic_overlap(
        left in any_pattern(),
        right in any_pattern(),
        topic in any_key(),
    ) {
        let (left, right) = (pattern(&left), pattern(&right));
        if Topic::new(&*topic).is_ok() && left.matches(&topic) && right.matches(&topic) {
            prop_assert!(left.overlaps(&right));
        }
    }

    #[test]
    fn any_text_is_taken_or_refused_without_a_panic(text in ".{0,80}|[.*?#{}a\\[\\]]{0,300}") {
        match Topic::new(&*text) {
            Ok(topic) => prop_assert_eq!(topic.to_string(), &*text),
            Err(error) => prop_assert_eq!(error.input(), &*text),
        }
        match TopicPattern::new(&*text) {
            Ok(pattern) => {
                prop_assert_eq!(pattern.to_string(), &*text);
                let example = pattern.overlap_example(&pattern);
                prop_assert!(example.is_some_and(|topic| pattern.matches(topic.as_str())));
            }
            Err(error) => prop_assert_eq!(error.input(), &*text),
        }
    }
}

proptest! {
    // Each case asks about 1554 topics.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn the_shortest_shared_topic_alone_decides_whether_the_limit_allows_an_overlap(
        left in short_pattern(),
        right in short_pattern(),
    ) {
        let both = [pattern(&left), pattern(&right)];
        let shared = TOPICS.iter().filter(|topic| both.iter().all(|pattern| pattern.matches(topic)));
        let shortest = shared.map(String::len).min();
        prop_assert_eq!(both[0].overlaps(&both[1]), shortest.is_some());
        if !both.iter().any(TopicPattern::needs_filter) {
            let example = both[0].overlap_example(&both[1]);
            prop_assert_eq!(example.map(|topic| topic.as_str().len()), shortest);
        }

        // One more word on either side, and only one word will do: of just as many bytes as are left, or one more.
        let nothing_but_hashes = |text: &str| text.chars().all(|character| "#.".contains(character));
        let taken = match shortest {
            _ if nothing_but_hashes(&left) && nothing_but_hashes(&right) => 0,
            Some(bytes) => bytes + 1,
            None => return Ok(()),
        };
        let ours = pattern(&format!("{left}.{}*", "y".repeat(100)));
        for (bytes, fits) in [(255 - taken, true), (256 - taken, false)] {
            let theirs = pattern(&format!("{right}.*{}", "z".repeat(bytes - 100)));
            let example = ours.overlap_example(&theirs);
            prop_assert_eq!(example.as_ref().map(|topic| topic.as_str().len()), fits.then_some(255));
            prop_assert_eq!(ours.overlaps(&theirs), fits);
        }
    }
}

#[test]
fn every_small_pattern_matches_what_its_definition_says() {
    let among_words = (all_texts(&["a", "b", "*", "#"], 1..=4), all_texts(&["", "a", "b"], 1..=5));
    let concatenated = |texts: Vec<String>| -> Vec<String> {
        texts.into_iter().map(|text| text.replace('.', "")).collect()
    };
    let within_a_word = (
        concatenated(all_texts(&["a", "b", "*", "?"], 1..=5)),
        concatenated(all_texts(&["a", "b"], 1..=5)),
    );
    for (patterns, keys) in [among_words, within_a_word] {
        for text in patterns {
            // Several stars alone are refused.
            let Ok(pattern) = TopicPattern::new(&*text) else { continue };
            for key in &keys {
                let expected = reference::matches(&text, key);
                assert_eq!(pattern.matches(key), expected, "{text:?} and {key:?}");
            }
        }
    }
}

#[test]
fn overlaps_are_found_exactly_if_a_search_of_all_topics_finds_one() {
    let patterns: Vec<_> = all_texts(&["a", "b", "*", "#", "a*", "*b", "a?", "?"], 1..=2)
        .into_iter()
        .chain(all_texts(&["a", "b", "*", "#"], 3..=3))
        .map(|text| {
            let pattern = pattern(&text);
            let bits = |topics: &[String]| {
                topics
                    .iter()
                    .fold(0_u128, |bits, topic| bits << 1 | u128::from(pattern.matches(topic)))
            };
            let matched: Vec<_> = TOPICS.chunks(128).map(bits).collect();
            (pattern, matched)
        })
        .collect();
    let mut overlapping = 0;
    for (left, left_matched) in &patterns {
        for (right, right_matched) in &patterns {
            let found = left_matched.iter().zip(right_matched).any(|(l, r)| l & r != 0);
            assert_eq!(left.overlaps(right), found, "{left} and {right}");
            overlapping += usize::from(found);
        }
    }
    // Both answers occur, in earnest.
    let pairs = patterns.len().pow(2);
    assert!((pairs / 10..pairs * 9 / 10).contains(&overlapping), "{overlapping} of {pairs}");
}

#[test]
fn many_runs_do_not_multiply() {
    let started = Instant::now();
    let patterns = [
        pattern(&format!("{}#.b", "#.a.".repeat(62))),
        pattern(&format!("#.{}b", "a.".repeat(126))),
        pattern(&format!("{}b", "*a".repeat(127))),
        pattern(&format!("*{}b", "a".repeat(253))),
        pattern(&format!("{}#.b", "#.*a*a*a*.".repeat(25))),
    ];
    let keys = ["a".repeat(255), "a.".repeat(127) + "c", "aaaaaaaaaaaaaa.".repeat(17)];
    for pattern in &patterns {
        for key in &keys {
            for _ in 0..20 {
                assert!(!pattern.matches(key), "{pattern}");
            }
        }
        let both_ways = ["a.".repeat(127) + "b", "a".repeat(254) + "b", "aaa.".repeat(63) + "b"];
        assert!(both_ways.iter().any(|key| pattern.matches(key)), "{pattern}");
    }
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
}

#[test]
fn a_key_of_any_length_takes_time_in_proportion() {
    let started = Instant::now();
    for text in [format!("#.{}b", "a.".repeat(126)), format!("*{}b", "a".repeat(253))] {
        assert!(!pattern(&text).matches(&"a.".repeat(10_000)));
        assert!(!pattern(&text).matches(&"a".repeat(10_000)));
    }
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
}

#[test]
fn the_overlap_of_long_patterns_is_found_soon() {
    let started = Instant::now();
    let patterns = [
        pattern(&format!("{}#.b", "#.a.".repeat(62))),
        pattern(&format!("{}*.#", "*.#.".repeat(62))),
        pattern(&format!("{}b", "*a".repeat(127))),
        pattern(&format!("a{}", "b*".repeat(127))),
        pattern(&format!("{}#", "#.*a*b*a*.".repeat(25))),
        pattern(&"?".repeat(255)),
    ];
    for left in &patterns {
        for right in &patterns {
            let example = left.overlap_example(right);
            assert_eq!(left.overlaps(right), example.is_some());
            if let Some(topic) = example {
                assert!(left.matches(topic.as_str()) && right.matches(topic.as_str()));
            }
        }
    }
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
}

#[test]
fn a_pattern_without_globs_routes_as_rabbitmq_does() {
    let keys = all_texts(&["", "a", "b"], 1..=4);
    let patterns = all_texts(&["a", "b", "*", "#"], 1..=3);
    let mut seen = RABBITMQ.split_whitespace();
    for text in &patterns {
        assert_eq!(seen.next(), Some(&**text));
        let routed = u128::from_str_radix(seen.next().unwrap(), 16).unwrap();
        for (bit, key) in (0..keys.len()).rev().zip(&keys) {
            let (ours, theirs) = (pattern(text).matches(key), routed >> bit & 1 == 1);
            assert_eq!(ours, theirs, "{text:?} and {key:?}");
        }
    }
    assert_eq!(seen.next(), None);
}

/// For each pattern of up to three words the keys, among all of up to four words from "", "a" and "b", that a topic
/// exchange of RabbitMQ 3.10.8 routed to a queue bound with it. A bit a key, the first key the highest.
const RABBITMQ: &str = "
    a     400000000000000000000000000000   b     200000000000000000000000000000
    *     600000000000000000000000000000   #     ffffffffffffffffffffffffffffff
    a.a   010000000000000000000000000000   a.b   008000000000000000000000000000
    a.*   038000000000000000000000000000   a.#   438007fc000000003ffffff8000000
    b.a   002000000000000000000000000000   b.b   001000000000000000000000000000
    b.*   007000000000000000000000000000   b.#   20700003fe00000000000007ffffff
    *.a   092000000000000000000000000000   *.b   049000000000000000000000000000
    *.*   1ff000000000000000000000000000   *.#   7fffffffffffffffffffffffffffff
    #.a   492492492492492492492492492492   #.b   249249249249249249249249249249
    #.*   7fffffffffffffffffffffffffffff   #.#   ffffffffffffffffffffffffffffff
    a.a.a 000000400000000000000000000000   a.a.b 000000200000000000000000000000
    a.a.* 000000e00000000000000000000000   a.a.# 010000e000000000001ff000000000
    a.b.a 000000080000000000000000000000   a.b.b 000000040000000000000000000000
    a.b.* 0000001c0000000000000000000000   a.b.# 0080001c0000000000000ff8000000
    a.*.a 000002480000000000000000000000   a.*.b 000001240000000000000000000000
    a.*.* 000007fc0000000000000000000000   a.*.# 038007fc000000003ffffff8000000
    a.#.a 010002480000000012492490000000   a.#.b 008001240000000009249248000000
    a.#.* 038007fc000000003ffffff8000000   a.#.# 438007fc000000003ffffff8000000
    b.a.a 000000002000000000000000000000   b.a.b 000000001000000000000000000000
    b.a.* 000000007000000000000000000000   b.a.# 00200000700000000000000003fe00
    b.b.a 000000000400000000000000000000   b.b.b 000000000200000000000000000000
    b.b.* 000000000e00000000000000000000   b.b.# 001000000e000000000000000001ff
    b.*.a 000000012400000000000000000000   b.*.b 000000009200000000000000000000
    b.*.* 00000003fe00000000000000000000   b.*.# 00700003fe00000000000007ffffff
    b.#.a 002000012400000000000002492492   b.#.b 001000009200000000000001249249
    b.#.* 00700003fe00000000000007ffffff   b.#.# 20700003fe00000000000007ffffff
    *.a.a 000080402000000000000000000000   *.a.b 000040201000000000000000000000
    *.a.* 0001c0e07000000000000000000000   *.a.# 0921c0e07000ff80001ff00003fe00
    *.b.a 000010080400000000000000000000   *.b.b 000008040200000000000000000000
    *.b.* 0000381c0e00000000000000000000   *.b.# 0490381c0e00007fc0000ff80001ff
    *.*.a 000492492400000000000000000000   *.*.b 000249249200000000000000000000
    *.*.* 000ffffffe00000000000000000000   *.*.# 1fffffffffffffffffffffffffffff
    *.#.a 092492492492492492492492492492   *.#.b 049249249249249249249249249249
    *.#.* 1fffffffffffffffffffffffffffff   *.#.# 7fffffffffffffffffffffffffffff
    #.a.a 010080402010080402010080402010   #.a.b 008040201008040201008040201008
    #.a.* 0381c0e070381c0e070381c0e07038   #.a.# 4ba5d7fd74baffaebffffffaebfeba
    #.b.a 002010080402010080402010080402   #.b.b 001008040201008040201008040201
    #.b.* 0070381c0e070381c0e070381c0e07   #.b.# 24f2793ffe4f27ffc9e4ffffffffff
    #.*.a 092492492492492492492492492492   #.*.b 049249249249249249249249249249
    #.*.* 1fffffffffffffffffffffffffffff   #.*.# 7fffffffffffffffffffffffffffff
    #.#.a 492492492492492492492492492492   #.#.b 249249249249249249249249249249
    #.#.* 7fffffffffffffffffffffffffffff   #.#.# ffffffffffffffffffffffffffffff
";
