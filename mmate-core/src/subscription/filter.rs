//! Message-type filters.

use glob::Pattern;

/// Which message types a subscription takes: names or globs such as `Order*`.
#[derive(Debug, Clone, Default)]
pub(crate) struct TypeFilter(Vec<Pattern>);

/// A message-type filter that is no glob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the message-type filter {filter:?} is no glob: {wrong} at byte {at}")]
#[non_exhaustive]
pub struct InvalidTypeFilter {
    /// The filter.
    pub filter: String,
    /// What is wrong with it.
    pub wrong: &'static str,
    /// Where.
    pub at: usize,
}

impl TypeFilter {
    pub(crate) fn add(&mut self, filter: &str) -> Result<(), InvalidTypeFilter> {
        let pattern = Pattern::new(filter).map_err(|error| InvalidTypeFilter {
            filter: filter.to_owned(),
            wrong: error.msg,
            at: error.pos,
        })?;
        self.0.push(pattern);
        Ok(())
    }

    pub(crate) fn takes_all(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn takes(&self, message_type: &str) -> bool {
        self.takes_all() || self.0.iter().any(|pattern| pattern.matches(message_type))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_takes_what_one_of_its_globs_matches() {
        let mut filter = TypeFilter::default();
        assert!(filter.takes("Anything"));
        filter.add("Order*").unwrap();
        filter.add("Payment").unwrap();
        assert!(filter.takes("OrderCreated"));
        assert!(filter.takes("Payment"));
        assert!(!filter.takes("PaymentFailed"));
    }

    #[test]
    fn a_filter_that_is_no_glob_is_told_with_its_place() {
        let error = TypeFilter::default().add("Order[").unwrap_err();
        assert_eq!(error.filter, "Order[");
        assert_eq!(error.at, 5);
    }
}
