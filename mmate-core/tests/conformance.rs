//! The conformance suite over the broker inside the process.

use mmate_core::InProcess;
use mmate_core::conformance::Harness;

#[derive(Default)]
struct OnInProcess(InProcess);

#[async_trait::async_trait]
impl Harness for OnInProcess {
    type Transport = InProcess;

    fn transport(&self) -> InProcess {
        self.0.clone()
    }

    async fn cut(&self) {
        self.0.cut();
    }

    async fn ready(&self, queue: &str) -> usize {
        self.0.queue(queue).map_or(0, |queue| queue.ready)
    }
}

mod on_one_thread {
    use super::OnInProcess;
    mmate_core::transport_conformance!(OnInProcess::default());
}

mod on_many_threads {
    use super::OnInProcess;
    mmate_core::transport_conformance!(
        OnInProcess::default(),
        flavor = "multi_thread",
        worker_threads = 4
    );
}

mod on_a_clock_that_jumps {
    use super::OnInProcess;
    mmate_core::transport_conformance!(OnInProcess::default(), start_paused = true);
}

/// A case that is written and not listed would be skipped in silence.
#[test]
fn every_case_is_in_the_list() {
    let list = include_str!("../src/conformance/mod.rs");
    let sources = [
        include_str!("../src/conformance/batches.rs"),
        include_str!("../src/conformance/browsing.rs"),
        include_str!("../src/conformance/chains.rs"),
        include_str!("../src/conformance/content.rs"),
        include_str!("../src/conformance/dead_letters.rs"),
        include_str!("../src/conformance/declaring.rs"),
        include_str!("../src/conformance/delay.rs"),
        include_str!("../src/conformance/later.rs"),
        include_str!("../src/conformance/letters.rs"),
        include_str!("../src/conformance/ordering.rs"),
        include_str!("../src/conformance/outage.rs"),
        include_str!("../src/conformance/partitions.rs"),
        include_str!("../src/conformance/publishing.rs"),
        include_str!("../src/conformance/replies.rs"),
        include_str!("../src/conformance/requests.rs"),
        include_str!("../src/conformance/routing.rs"),
        include_str!("../src/conformance/service.rs"),
        include_str!("../src/conformance/service_outcomes.rs"),
        include_str!("../src/conformance/settling.rs"),
        include_str!("../src/conformance/sharing.rs"),
    ];
    for line in sources.iter().flat_map(|source| source.lines()) {
        let Some(rest) = line.strip_prefix("pub async fn ") else { continue };
        let name = rest.split(['<', '(']).next().unwrap();
        assert!(list.contains(&format!(" {name},\n")), "{name} is not in the list");
    }
}
