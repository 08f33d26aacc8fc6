//! A topology as a flowchart.

use std::fmt::Write;

use super::{PlannedQueue, Topology};

pub(super) fn draw(topology: &Topology) -> String {
    let mut chart = String::from("flowchart LR\n");
    // Writing into a String cannot fail.
    let _ = write(topology, &mut chart);
    chart
}

fn write(topology: &Topology, chart: &mut String) -> std::fmt::Result {
    let exchanges = topology.exchanges();
    for (at, exchange) in exchanges.iter().enumerate() {
        writeln!(chart, "  e{at}{{{{\"{}\"}}}}", escaped(exchange))?;
    }
    for (at, queue) in topology.queues().iter().enumerate() {
        let PlannedQueue { plan, subscription, .. } = queue;
        writeln!(chart, "  q{at}[(\"{}\")]", escaped(&plan.name))?;
        writeln!(chart, "  s{at}[\"{}\"]", escaped(subscription))?;
        writeln!(chart, "  d{at}[(\"{}\")]", escaped(&plan.dead_letter_queue()))?;
        for binding in &plan.bindings {
            // Each exchange of a binding is in the list.
            let from = exchanges.iter().position(|name| **name == binding.exchange).unwrap_or(0);
            let pattern = escaped(binding.pattern.as_ref());
            writeln!(chart, "  e{from} -- \"{pattern}\" --> q{at}")?;
        }
        writeln!(chart, "  q{at} --> s{at}")?;
        writeln!(chart, "  s{at} -. \"dead letters\" .-> d{at}")?;
    }
    Ok(())
}

/// A text within quotes: what means something to Mermaid or to HTML is written by its number
/// (Mermaid, "Flowcharts", entity codes). A topic's `#` is one of them.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '#' | '<' | '>' | '&' | '`' | '*' | '_' | '\\' | ';' => {
                let _ = write!(escaped, "#{};", u32::from(c));
            }
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_to_mermaid_is_written_by_its_number() {
        assert_eq!(escaped("order.*.#"), "order.#42;.#35;");
        assert_eq!(escaped("a\"b<br>`c`\nd"), "a#34;b#60;br#62;#96;c#96; d");
        assert_eq!(escaped("bestellung.ü.eu-west"), "bestellung.ü.eu-west");
    }
}
