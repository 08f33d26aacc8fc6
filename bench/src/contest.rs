//! A case: contenders that run in turn.

use futures_util::future::BoxFuture;

use crate::Result;
use crate::figures::{Figure, Sample};
use crate::goal::{Compare, Goal};
use crate::servers::Servers;

/// Something that is measured.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    run: Run,
}

type Run = Box<dyn Fn(Servers) -> BoxFuture<'static, Result<Sample>> + Send + Sync>;

impl Contender {
    pub(crate) fn new<F, Fut>(name: &'static str, run: F) -> Self
    where
        F: Fn(Servers) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Sample>> + Send + 'static,
    {
        Self { name, run: Box::new(move |servers| Box::pin(run(servers))) }
    }
}

/// Contenders, and what is to be seen of them.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) contenders: Vec<Contender>,
    pub(crate) goals: Vec<Goal>,
}

/// What a case gave.
pub(crate) struct Results {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) figures: Vec<Figure>,
    pub(crate) contenders: Vec<(&'static str, Vec<Sample>)>,
    pub(crate) goals: Vec<Reached>,
}

/// A goal, and how the rounds compare.
pub(crate) struct Reached {
    pub(crate) goal: Goal,
    pub(crate) value: Spread,
}

/// The middle of several values, and how far they lie apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.retain(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => (values[middle - 1] + values[middle]) / 2.0,
            _ => values[middle],
        };
        Some(Self { median, least, most })
    }
}

impl Case {
    /// Runs all contenders in turn, once to warm up and then round after round.
    pub(crate) async fn run(self, servers: &Servers, rounds: u32) -> Result<Results> {
        eprintln!("{} {}", self.name, self.title);
        let mut contenders: Vec<_> = self.contenders.iter().map(|c| (c.name, Vec::new())).collect();
        for round in 0..=rounds {
            for (contender, (_, samples)) in self.contenders.iter().zip(&mut contenders) {
                let ran = (contender.run)(servers.clone()).await;
                let sample = ran.map_err(|e| format!("{}, {}: {e}", self.name, contender.name))?;
                let phase = if round == 0 { "warming up".to_owned() } else { round.to_string() };
                eprintln!("  {phase:>10}  {:<48} {}", contender.name, line(&sample));
                if round > 0 {
                    samples.push(sample);
                }
            }
        }
        let mut figures: Vec<Figure> = Vec::new();
        for sample in contenders.iter().flat_map(|(_, samples)| samples) {
            for figure in sample.0.keys() {
                if !figures.contains(figure) {
                    figures.push(figure);
                }
            }
        }
        let (name, title) = (self.name, self.title);
        let reached = |goal: &Goal| reached(*goal, &contenders);
        let goals = self.goals.iter().map(reached).collect::<Result<_>>()?;
        Ok(Results { name, title, figures, contenders, goals })
    }
}

fn line(sample: &Sample) -> String {
    let figure = |(figure, value): (&Figure, &f64)| format!("{} {figure}", number(*value));
    sample.0.iter().map(figure).collect::<Vec<_>>().join(", ")
}

/// A number with three figures or so, and thousands apart.
pub(crate) fn number(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_once('.').map_or((text.as_str(), None), |(w, r)| (w, Some(r)));
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let rest = rest.map_or(String::new(), |rest| format!(".{rest}"));
    format!("{sign}{grouped}{rest}")
}

/// Compares round by round: what the machine did meanwhile is the same for both.
fn reached(goal: Goal, contenders: &[(&'static str, Vec<Sample>)]) -> Result<Reached> {
    let of = |name: &str| {
        let found = contenders.iter().find(|(had, _)| *had == name);
        let samples = found.ok_or_else(|| format!("there is no contender {name}"))?;
        Ok::<_, crate::Error>(
            samples.1.iter().map(|s| s.0.get(goal.figure).copied()).collect::<Vec<_>>(),
        )
    };
    let ours = of(goal.contender)?;
    let theirs = goal.against.iter().map(|name| of(name)).collect::<Result<Vec<_>>>()?;
    let mut values = Vec::new();
    for (round, value) in ours.iter().enumerate() {
        let Some(value) = *value else { continue };
        let best = theirs.iter().filter_map(|rounds| rounds[round]).fold(f64::NAN, f64::max);
        values.push(match goal.compare {
            Compare::Ratio => value / best,
            Compare::Difference => value - best,
            Compare::Nothing => value,
        });
    }
    let value = Spread::of(values).ok_or("a goal without values")?;
    Ok(Reached { goal, value })
}
