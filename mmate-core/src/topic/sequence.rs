//! Patterns over sequences, of whatever.
//!
//! A topic is a sequence of words, and a word a sequence of characters. A pattern for either is a sequence of elements:
//! each takes exactly one symbol, except a *run* (`#` among words, `*` among characters), which takes any number. So
//! both levels share one way to match, and one way to find what two patterns have in common.

/// One element of a pattern.
pub(super) trait Element {
    /// What a matched sequence consists of.
    type Symbol<'s>: Copy;

    /// Whether it takes any number of symbols, whatever they are.
    fn is_run(&self) -> bool;

    /// Whether it takes this one symbol. Not asked of a run.
    fn accepts(&self, symbol: Self::Symbol<'_>) -> bool;

    /// The size in bytes, never 0, of the smallest symbol that both take; `None` if there is no such symbol. At most
    /// one of the two is a run.
    fn smallest_common(&self, other: &Self) -> Option<usize>;
}

/// Whether the elements take exactly these symbols.
///
/// Between two runs stands a stretch of elements that take one symbol each. The first place where such a stretch fits
/// is as good as any later one: it leaves the most to the next run. So only the latest run is ever tried again, and no
/// element meets the same symbol twice: at most `elements × symbols` questions, and no memory.
pub(super) fn matches<'s, E: Element>(
    elements: &[E],
    symbols: impl Iterator<Item = E::Symbol<'s>> + Clone,
) -> bool {
    let mut elements = elements;
    let mut symbols = symbols;
    // What follows the latest run, and the symbols it has not taken yet.
    let mut latest_run = None;
    loop {
        let fits = match elements.split_first() {
            Some((element, rest)) if element.is_run() => {
                if rest.is_empty() {
                    return true;
                }
                latest_run = Some((rest, symbols.clone()));
                elements = rest;
                continue;
            }
            Some((element, rest)) => {
                // Without a symbol left, nothing helps: a run that takes more leaves fewer.
                let Some(symbol) = symbols.next() else { return false };
                elements = rest;
                element.accepts(symbol)
            }
            None if symbols.next().is_none() => return true,
            None => false,
        };
        if !fits {
            let Some((after_run, untaken)) = &mut latest_run else { return false };
            untaken.next();
            elements = after_run;
            symbols = untaken.clone();
        }
    }
}

/// The smallest sequence that two patterns both take: for each of its symbols, the element on either side that takes
/// it; and its size in bytes. `None` if no sequence is taken by both.
///
/// Fills a table of the smallest common ends, for each pair of ends of the two patterns: `left × right` steps.
pub(super) fn smallest_common<'e, E: Element>(
    left: &'e [E],
    right: &'e [E],
) -> Option<(usize, Vec<(&'e E, &'e E)>)> {
    let sizes = Sizes::of(left, right);
    let total = sizes.at(0, 0)?;
    let mut symbols = Vec::new();
    let (mut l, mut r) = (0, 0);
    // A symbol has a size, so an end of the same size one element on means that the run took nothing more.
    while (l, r) != (left.len(), right.len()) {
        let here = sizes.at(l, r);
        if left.get(l).is_some_and(E::is_run) && sizes.at(l + 1, r) == here {
            l += 1;
        } else if right.get(r).is_some_and(E::is_run) && sizes.at(l, r + 1) == here {
            r += 1;
        } else {
            symbols.push((&left[l], &right[r]));
            (l, r) = after_symbol(left, l, right, r);
        }
    }
    Some((total, symbols))
}

/// Where the two patterns stand after taking one more symbol: a run may take another.
fn after_symbol<E: Element>(left: &[E], l: usize, right: &[E], r: usize) -> (usize, usize) {
    (l + usize::from(!left[l].is_run()), r + usize::from(!right[r].is_run()))
}

/// The size of the smallest sequence taken by both `left[l..]` and `right[r..]`, for all `l` and `r`.
struct Sizes {
    cells: Vec<Option<usize>>,
    columns: usize,
}

impl Sizes {
    fn of<E: Element>(left: &[E], right: &[E]) -> Self {
        let columns = right.len() + 1;
        let mut sizes = Self { cells: vec![None; (left.len() + 1) * columns], columns };
        for l in (0..=left.len()).rev() {
            for r in (0..=right.len()).rev() {
                sizes.cells[l * columns + r] = sizes.smallest(left, l, right, r);
            }
        }
        sizes
    }

    fn at(&self, l: usize, r: usize) -> Option<usize> {
        self.cells[l * self.columns + r]
    }

    fn smallest<E: Element>(&self, left: &[E], l: usize, right: &[E], r: usize) -> Option<usize> {
        let (element_l, element_r) = (left.get(l), right.get(r));
        let run_l = element_l.is_some_and(E::is_run);
        let run_r = element_r.is_some_and(E::is_run);
        let mut smallest = match (element_l, element_r) {
            (None, None) => Some(0),
            // A symbol that two runs take is one too many.
            (Some(a), Some(b)) if !(run_l && run_r) => {
                let (next_l, next_r) = after_symbol(left, l, right, r);
                self.at(next_l, next_r)
                    .and_then(|rest| a.smallest_common(b).map(|size| size + rest))
            }
            _ => None,
        };
        if run_l {
            smallest = lesser(smallest, self.at(l + 1, r));
        }
        if run_r {
            smallest = lesser(smallest, self.at(l, r + 1));
        }
        smallest
    }
}

/// The lesser size, if there is one. Written out, as `flatten().min()` made the whole table many times slower.
fn lesser(a: Option<usize>, b: Option<usize>) -> Option<usize> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        _ => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Counts the questions it is asked.
    struct Counted<'c> {
        takes: Option<u8>,
        asked: &'c Cell<usize>,
    }

    impl Element for Counted<'_> {
        type Symbol<'s> = u8;

        fn is_run(&self) -> bool {
            self.takes.is_none()
        }

        fn accepts(&self, symbol: u8) -> bool {
            self.asked.set(self.asked.get() + 1);
            self.takes == Some(symbol)
        }

        fn smallest_common(&self, other: &Self) -> Option<usize> {
            self.asked.set(self.asked.get() + 1);
            (self.is_run() || other.is_run() || self.takes == other.takes).then_some(1)
        }
    }

    fn pattern<'c>(text: &str, asked: &'c Cell<usize>) -> Vec<Counted<'c>> {
        let takes = |symbol| (symbol != b'*').then_some(symbol);
        text.bytes().map(|symbol| Counted { takes: takes(symbol), asked }).collect()
    }

    #[test]
    fn no_element_meets_the_same_symbol_twice() {
        let many_runs = format!("{}b", "*a".repeat(60));
        let long_stretches = format!("{}*{}b", "*a".repeat(20), "a".repeat(60));
        for text in [&many_runs, &long_stretches] {
            let asked = Cell::new(0);
            let elements = pattern(text, &asked);
            let symbols = "a".repeat(1000);
            assert!(!matches(&elements, symbols.bytes()));
            assert!(asked.get() <= elements.len() * symbols.len(), "{} questions", asked.get());
        }
    }

    #[test]
    fn what_two_patterns_share_is_found_in_one_question_for_each_pair_of_elements() {
        let asked = Cell::new(0);
        let left = pattern(&format!("{}b", "*a".repeat(60)), &asked);
        let right = pattern(&format!("{}*b", "a".repeat(100)), &asked);
        let (size, symbols) = smallest_common(&left, &right).unwrap();
        assert_eq!((size, symbols.len()), (101, 101));
        assert!(asked.get() <= left.len() * right.len(), "{} questions", asked.get());
    }

    #[test]
    fn a_run_that_takes_more_leaves_fewer_so_a_short_input_is_refused_at_once() {
        let asked = Cell::new(0);
        assert!(!matches(&pattern("*aaaa", &asked), "aaa".bytes()));
        assert_eq!(asked.get(), 3);
    }

    #[test]
    fn runs_alone_share_the_empty_sequence() {
        let asked = Cell::new(0);
        let (left, right) = (pattern("**", &asked), pattern("*", &asked));
        let (size, symbols) = smallest_common(&left, &right).unwrap();
        assert_eq!((size, symbols.len(), asked.get()), (0, 0, 0));
    }
}
