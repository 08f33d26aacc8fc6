//! A case: contenders that run in turn.

use futures_util::future::BoxFuture;

use crate::Result;
use crate::figures::{ALLOCATIONS, Figure, Sample, YARDSTICK};
use crate::goal::{Compare, Goal};
use crate::servers::Servers;
use crate::{twin, yardstick};

/// Something that is measured.
pub(crate) struct Contender {
    pub(crate) name: String,
    /// Where it stands on a curve.
    point: Option<Point>,
    run: Run,
}

/// A place on a curve.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    /// The name of the curve.
    pub(crate) of: &'static str,
    /// What it is measured at.
    pub(crate) at: u32,
}

type Run = Box<dyn Fn(Servers) -> BoxFuture<'static, Result<Sample>> + Send + Sync>;

impl Contender {
    pub(crate) fn new<F, Fut>(name: &'static str, run: F) -> Self
    where
        F: Fn(Servers) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Sample>> + Send + 'static,
    {
        let run: Run = Box::new(move |servers| Box::pin(run(servers)));
        Self { name: name.to_owned(), point: None, run }
    }

    /// The curve `of` at each of these values, which `run` is given.
    pub(crate) fn curve<F, Fut>(of: &'static str, values: &[u32], run: F) -> Vec<Self>
    where
        F: Fn(Servers, u32) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Sample>> + Send + 'static,
    {
        let contender = |at: &u32| {
            let (at, run) = (*at, run.clone());
            let run: Run = Box::new(move |servers| Box::pin(run(servers, at)));
            Self { name: format!("{of}: {at}"), point: Some(Point { of, at }), run }
        };
        values.iter().map(contender).collect()
    }
}

/// Contenders, and what is to be seen of them.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) curve: Option<Curve>,
    pub(crate) contenders: Vec<Contender>,
    pub(crate) goals: Vec<Goal>,
}

/// What is drawn of a case whose contenders are points.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Curve {
    /// What the values are.
    pub(crate) axis: &'static str,
    pub(crate) figures: &'static [Figure],
}

/// What a case gave.
pub(crate) struct Results {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) curve: Option<Curve>,
    pub(crate) figures: Vec<Figure>,
    pub(crate) contenders: Vec<Ran>,
    pub(crate) goals: Vec<Reached>,
}

/// What a contender gave.
pub(crate) struct Ran {
    pub(crate) name: String,
    pub(crate) point: Option<Point>,
    /// Of each round.
    pub(crate) samples: Vec<Sample>,
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
    /// Runs one contender, once.
    pub(crate) async fn run_one(&self, servers: &Servers, contender: &str) -> Result<Sample> {
        let found = self.contenders.iter().find(|one| one.name == contender);
        let one = found.ok_or_else(|| format!("{} has no contender {contender}", self.name))?;
        (one.run)(servers.clone()).await
    }

    /// Runs all contenders in turn, once to warm up and then round after round.
    pub(crate) async fn run(self, servers: &Servers, rounds: u32) -> Result<Results> {
        eprintln!("{} {}", self.name, self.title);
        let ran = |c: &Contender| Ran { name: c.name.clone(), point: c.point, samples: Vec::new() };
        let mut contenders: Vec<_> = self.contenders.iter().map(ran).collect();
        for round in 0..=rounds {
            for (contender, ran) in self.contenders.iter().zip(&mut contenders) {
                let before = yardstick::milliseconds();
                let sample = (contender.run)(servers.clone()).await;
                let sample = sample.map_err(|e| format!("{}, {}: {e}", self.name, ran.name))?;
                let after = yardstick::milliseconds();
                let sample = sample.with(YARDSTICK, f64::midpoint(before, after));
                let phase = if round == 0 { "warming up".to_owned() } else { round.to_string() };
                eprintln!("  {phase:>10}  {:<48} {}", ran.name, line(&sample));
                if round > 0 {
                    ran.samples.push(sample);
                }
            }
        }
        if self.goals.iter().any(|goal| goal.figure == ALLOCATIONS) {
            for ran in &mut contenders {
                let allocations = twin::allocations(servers, self.name, &ran.name).await?;
                for sample in &mut ran.samples {
                    sample.0.insert(ALLOCATIONS, allocations);
                }
            }
        }
        let mut figures: Vec<Figure> = Vec::new();
        for figure in contenders.iter().flat_map(|ran| &ran.samples).flat_map(|s| s.0.keys()) {
            if !figures.contains(figure) {
                figures.push(figure);
            }
        }
        let goals = self.goals.iter().map(|goal| reached(*goal, &contenders));
        let goals = goals.collect::<Result<_>>()?;
        let Self { name, title, curve, .. } = self;
        Ok(Results { name, title, curve, figures, contenders, goals })
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
fn reached(goal: Goal, contenders: &[Ran]) -> Result<Reached> {
    let of = |name: &str| {
        let found = contenders.iter().find(|ran| ran.name == name);
        let ran = found.ok_or_else(|| format!("there is no contender {name}"))?;
        let values = ran.samples.iter().map(|sample| sample.0.get(goal.figure).copied());
        Ok::<_, crate::Error>(values.collect::<Vec<_>>())
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
