//! A soak from its beginning to its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mmate_core::checker::{Checker, EndState, Event, Journal, Verdict};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::counters::Noted;
use super::options::Options;
use super::page;
use super::plan::Plan;
use super::publisher::Publishing;
use super::samples::{Counter, Sample};
use super::stage::Stage;
use super::timeline::{Fault, Timeline};
use super::truth;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What came of a soak.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// What became of every message.
    pub verdict: Verdict,
    /// The result page.
    pub page: PathBuf,
}

/// What the tasks of a run share.
struct Course {
    stage: Stage,
    plan: Plan,
    timeline: Timeline,
    journals: PathBuf,
    effects: watch::Sender<u64>,
    allowed: watch::Sender<u64>,
    faults_done: AtomicU64,
    faults_over: AtomicBool,
}

/// How long there may be no effects, after the last message and the last fault, with messages in queues.
const LONGEST_STANDSTILL: Duration = Duration::from_secs(120);
/// How long nothing happens before what is in progress counts as stuck: a lease and 5 s.
const QUIET: Duration = Duration::from_secs(15);

/// Runs a soak.
///
/// # Errors
/// A server does not start, or something else that a soak itself needs is missing.
///
/// # Panics
/// A server cannot be harmed or asked.
pub async fn run(plan: &Plan, options: &Options) -> Result<Outcome, Failure> {
    fastrand::seed(plan.seed);
    let (_temporary, journals) = journals(options)?;
    println!("{}: starting servers", plan.name.as_str());
    let stage = Stage::set(plan, &journals).await?;
    let keepers = stage.fleet.start();
    while stage.fleet.ready() < plan.processes.into() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let allowed = watch::Sender::new(0);
    let publishing = Arc::new(Publishing {
        plan: plan.clone(),
        journal: Journal::append(journals.join("publisher.jsonl"))?,
        publisher: Publishing::connect(&stage.amqp).await?,
        allowed: allowed.subscribe(),
        confirmed: AtomicU64::new(0),
        publishing: Arc::clone(&stage.publishing),
    });
    let course = Arc::new(Course {
        stage,
        plan: plan.clone(),
        timeline: Timeline::new(),
        journals,
        effects: watch::Sender::new(0),
        allowed,
        faults_done: AtomicU64::new(0),
        faults_over: AtomicBool::new(false),
    });

    let sampling = tokio::spawn(sample(Arc::clone(&course), Arc::clone(&publishing)));
    let pacing = AbortOnDropHandle::new(tokio::spawn(pace(Arc::clone(&course))));
    let harming = tokio::spawn(harm(Arc::clone(&course)));
    Arc::clone(&publishing).run().await;
    harming.await?;
    drop(pacing);
    println!("{}: all is published, {} faults are done", plan.name.as_str(), plan.faults);

    let mut end = course.drain().await?;
    course.faults_over.store(true, Ordering::Relaxed);
    let samples = sampling.await?;
    if let Err(error) = course.stage.fleet.stop(keepers).await {
        end = end.stuck(error);
    }
    for (name, messages) in course.stage.queues()? {
        end = end.queue(name, messages);
    }
    for stuck in truth::stuck(&course.stage).await? {
        end = end.stuck(stuck);
    }
    course.conclude(end, &samples, options).await
}

fn journals(options: &Options) -> Result<(Option<tempfile::TempDir>, PathBuf), Failure> {
    if let Some(folder) = &options.journals {
        std::fs::create_dir_all(folder)?;
        if std::fs::read_dir(folder)?.next().is_some() {
            let folder = folder.display();
            return Err(format!("the folder {folder} is not empty, and journals of another run would be taken for this one's").into());
        }
        return Ok((None, folder.clone()));
    }
    let folder = tempfile::TempDir::new()?;
    let path = folder.path().to_owned();
    Ok((Some(folder), path))
}

/// Lets the publisher go on with time, but neither ahead of the faults, so that each of them meets messages, nor far ahead
/// of the consumers.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of messages")]
async fn pace(course: Arc<Course>) {
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let by_time = (course.timeline.elapsed().as_secs_f64() * course.plan.rate()) as u64;
        let by_faults = course.due_by(course.faults_done.load(Ordering::Relaxed) + 2);
        let by_effects = *course.effects.borrow() + LEAD;
        course.allowed.send_replace(by_time.min(by_faults).min(by_effects));
    }
}

/// How many messages may be published and not handled.
const LEAD: u64 = 20_000;

/// Strikes again and again.
async fn harm(course: Arc<Course>) {
    let journal = Journal::append(course.journals.join("faults.jsonl")).unwrap();
    let nemeses = &course.plan.nemeses;
    for number in 0..course.plan.faults as usize {
        let nemesis = nemeses[number % nemeses.len()];
        let mut effects = course.effects.subscribe();
        let due = course.due_by(number as u64) / 2;
        if effects.wait_for(|effects| *effects >= due).await.is_err() {
            return;
        }
        let (at, begin) = (course.timeline.elapsed(), Instant::now());
        let struck = nemesis.strike(&course.stage).await;
        let met = match struck.harmed.is_empty() {
            true => vec![nemesis.to_string()],
            false => struck.harmed,
        };
        let now = Event::fault("");
        for whom in met {
            journal.note(&now.clone().by(whom)).unwrap();
        }
        let fault = Fault {
            at: at.as_secs_f64(),
            nemesis,
            whom: struck.whom,
            lasted: begin.elapsed().as_secs_f64(),
            recovered_in: None,
        };
        let number = course.timeline.put(fault);
        tokio::spawn(recovery(Arc::clone(&course), number));
        course.faults_done.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(course.plan.every.saturating_sub(begin.elapsed())).await;
    }
}

/// Measures how long it takes until effects flow again.
async fn recovery(course: Arc<Course>, fault: usize) {
    const FLOW: u64 = 20;
    let begin = Instant::now();
    let mut effects = course.effects.subscribe();
    let before = *effects.borrow();
    if effects.wait_for(|now| *now >= before + FLOW).await.is_ok() {
        course.timeline.recovered(fault, begin.elapsed());
    }
}

/// Looks how it goes.
async fn sample(course: Arc<Course>, publishing: Arc<Publishing>) -> Vec<Sample> {
    let mut counter = Counter::of(&course.stage, &course.journals, course.plan.processes);
    let mut samples = Vec::new();
    let mut last_told = Instant::now();
    let mut looks = 0_u32;
    while !course.faults_over.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let counting = counter.count(&course.stage);
        let counted = tokio::time::timeout(Duration::from_secs(2), counting).await;
        if let Ok(Some(effects)) = counted {
            course.effects.send_replace(effects);
        }
        looks += 1;
        let (at, effects) = (course.timeline.elapsed(), *course.effects.borrow());
        if looks % 20 == 1 {
            let confirmed = publishing.confirmed.load(Ordering::Relaxed);
            let memory = course.stage.fleet.memory();
            samples.push(Sample { at: at.as_secs_f64(), effects, confirmed, memory });
        }
        if last_told.elapsed() > Duration::from_secs(10) {
            last_told = Instant::now();
            println!(
                "{:6.0} s  {:>9} published  {effects:>9} effects  {:>5} faults  {:>5} processes started",
                at.as_secs_f64(),
                publishing.confirmed.load(Ordering::Relaxed),
                course.faults_done.load(Ordering::Relaxed),
                course.stage.fleet.starts(),
            );
        }
    }
    samples
}

impl Course {
    /// How many messages belong to the first so many faults.
    fn due_by(&self, faults: u64) -> u64 {
        let Plan { messages, faults: all, .. } = self.plan;
        match faults >= u64::from(all) {
            true => messages,
            false => messages * faults / u64::from(all),
        }
    }

    /// Waits until all is handled, and for a while of quiet.
    async fn drain(&self) -> Result<EndState, Failure> {
        let (mut since, mut last) = (Instant::now(), 0);
        loop {
            let left = self.stage.queues()?;
            if left.is_empty() {
                break;
            }
            let effects = *self.effects.borrow();
            if effects > last {
                (since, last) = (Instant::now(), effects);
            }
            if since.elapsed() > LONGEST_STANDSTILL {
                let stuck = format!("{left:?}, and no effects for {LONGEST_STANDSTILL:?}");
                return Ok(EndState::default().stuck(stuck));
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        tokio::time::sleep(QUIET).await;
        Ok(EndState::default())
    }

    async fn conclude(
        &self,
        end: EndState,
        samples: &[Sample],
        options: &Options,
    ) -> Result<Outcome, Failure> {
        let letters = truth::letters(&self.stage).await;
        let (mut checker, mut noted) = (Checker::new(self.plan.promise()), Noted::default());
        truth::tell(&self.stage, &self.plan, &self.journals, &letters, |event| {
            checker.take(event);
            noted.take(event);
        })
        .await?;
        let verdict = checker.verdict(&noted.compare(&self.journals, end)?);
        println!("{verdict}");
        if !verdict.is_clean() {
            self.convict(&verdict, &letters).await?;
        }
        let report = page::Report {
            plan: &self.plan,
            command: &options.command(),
            verdict: &verdict,
            faults: &self.timeline.faults(),
            samples,
            starts: self.stage.fleet.starts(),
        };
        let page = report.write(&options.out)?;
        println!("the result page is {}", page.display());
        Ok(Outcome { verdict, page })
    }

    /// Tells the history of the first few messages that something is wrong with.
    async fn convict(&self, verdict: &Verdict, letters: &[String]) -> Result<(), Failure> {
        let mut events = Vec::new();
        let wrong: std::collections::HashSet<_> =
            verdict.sets().iter().flat_map(|(_, set)| set.iter().take(5).cloned()).collect();
        truth::tell(&self.stage, &self.plan, &self.journals, letters, |event| {
            if event.id.is_empty() || wrong.contains(&event.id) {
                events.push(event.clone());
            }
        })
        .await?;
        for (id, history) in verdict.convict(5, &events) {
            println!("{id}:");
            history.iter().for_each(|event| println!("    {event}"));
        }
        Ok(())
    }
}

/// Where a page's neighbours are, by its name.
pub(super) fn beside(folder: &Path, name: &str, ending: &str) -> PathBuf {
    folder.join(format!("{name}.{ending}"))
}
