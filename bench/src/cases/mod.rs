//! The cases: which they are, and running them.

mod consume;
mod dedup;
mod groups_by_hand;
mod latency;
mod peers;
pub(crate) mod processes;
mod publish;
mod routing;
mod rows;
mod transaction;
mod tuning;

use crate::contest::Case;
use crate::figures::{ALLOCATIONS, Figure};
use crate::goal::{Bound, Compare, Goal};
use crate::options::Options;
use crate::servers::Servers;
use crate::{Result, page, report};

/// How many deliveries all consumers may hold.
pub(crate) const PREFETCH: u16 = 1000;

fn all() -> Vec<Case> {
    let goals = [
        consume::case(),
        dedup::memory(),
        dedup::redis(),
        dedup::duplicates(),
        transaction::each(),
        transaction::batches(),
        publish::case(),
        latency::case(),
        rows::case(),
        routing::case(),
        processes::case(),
        peers::case(),
    ];
    goals.into_iter().chain(tuning::cases()).collect()
}

/// Runs the cases that were asked for, and reports.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let cases = all();
    if options.list {
        list(&cases);
        return Ok(());
    }
    for asked in &options.cases {
        if !cases.iter().any(|case| case.name.eq_ignore_ascii_case(asked)) {
            let names: Vec<_> = cases.iter().map(|case| case.name).collect();
            return Err(format!("there is no case {asked}; there are {}", names.join(", ")).into());
        }
    }
    let servers = Servers::of(options);
    let is_asked = |case: &Case| {
        options.cases.is_empty() || options.cases.iter().any(|a| case.name.eq_ignore_ascii_case(a))
    };
    for case in cases.into_iter().filter(is_asked) {
        let results = case.run(&servers, options.rounds).await?;
        println!("{}", report::text(&results));
        if let Some((contender, factor)) = page::noisiest(&results) {
            println!(
                "  noisy: the fastest round of \"{contender}\" was {factor:.2} times its slowest\n"
            );
        }
        page::write(&results, &options.out, &options.command(results.name))?;
    }
    Ok(())
}

/// Runs one contender of a case, and prints how often it allocates for a message.
pub(crate) async fn count(options: &Options, contender: &str) -> Result<()> {
    let asked = |case: &Case| options.cases.iter().any(|name| case.name == name);
    let case = all().into_iter().find(asked).ok_or("a contender without its case")?;
    let sample = case.run_one(&Servers::of(options), contender).await?;
    println!("{}", sample.0.get(ALLOCATIONS).ok_or("this program does not count")?);
    Ok(())
}

fn list(cases: &[Case]) {
    for case in cases {
        println!("{:<12} {}", case.name, case.title);
        for goal in &case.goals {
            let (sign, bound) = match goal.bound {
                Bound::AtLeast(bound) => ("≥", bound),
                Bound::AtMost(bound) => ("≤", bound),
            };
            let way = match goal.compare {
                Compare::Ratio => "×",
                Compare::Difference | Compare::Nothing => goal.figure,
            };
            println!("    {:<4} {sign} {bound} {way}: {}", goal.id, goal.what);
        }
    }
}

/// A number that nobody else has.
pub(crate) fn fresh() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    NUMBER.fetch_add(1, Ordering::Relaxed) + u64::from(std::process::id()) * 1_000_000
}

/// A goal, in one line.
fn goal(
    id: &'static str,
    what: &'static str,
    contender: &'static str,
    against: &'static [&'static str],
    figure: Figure,
    compare: Compare,
    bound: Bound,
) -> Goal {
    Goal { id, what, figure, contender, against, compare, bound }
}
