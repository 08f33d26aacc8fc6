//! The same as the program that measures, but slower: it counts allocations.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: &stats_alloc::StatsAlloc<std::alloc::System> = mmate_bench::ALLOCATOR;

#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    mmate_bench::run().await
}
