//! A soak from its beginning to its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mmate_core::checker::{Checker, Event, Journal, Verdict};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::counters::Noted;
use super::options::Options;
use super::page;
use super::parts::{Parts, Progress, asked_to_end};
use super::plan::Plan;
use super::publisher::{LANES, Publishing};
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
    parts: Parts,
    effects: watch::Sender<u64>,
    faults_done: AtomicU64,
    faults_over: AtomicBool,
    /// Somebody asked for the end.
    stop: CancellationToken,
}

/// How long there may be no effects, after the last message and the last fault, with messages in queues.
const LONGEST_STANDSTILL: Duration = Duration::from_secs(120);
/// How long the queues must be empty, each time that one looks, before what is in progress counts as stuck: a lease and 5 s,
/// and longer than anybody is frozen for.
const QUIET: Duration = Duration::from_secs(16);

/// Runs a soak.
///
/// # Errors
/// A server does not start, or something else that a soak itself needs is missing.
///
/// # Panics
/// A server cannot be harmed or asked.
pub async fn run(plan: &Plan, options: &Options) -> Result<Outcome, Failure> {
    fastrand::seed(plan.seed);
    let parts = Parts::open(options)?;
    let before = parts.before().clone();
    if before.messages >= plan.messages {
        return Err("this soak has come to its end: there is nothing to go on with".into());
    }
    let stop = asked_to_end()?;
    println!("{}: starting servers", plan.name.as_str());
    let journals = parts.folder();
    let stage = Stage::set(plan, &journals, before.starts).await?;
    let keepers = stage.fleet.start();
    while stage.fleet.ready() < plan.processes.into() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (allow, allowed) = watch::channel(before.messages);
    let publishing = Arc::new(Publishing {
        plan: plan.clone(),
        journal: Journal::append(journals.join("publisher.jsonl"))?,
        publisher: Publishing::connect(&stage.amqp).await?,
        first: before.messages,
        allowed,
        confirmed: AtomicU64::new(before.messages),
        publishing: Arc::clone(&stage.publishing),
    });
    let course = Arc::new(Course {
        stage,
        plan: plan.clone(),
        timeline: Timeline::after(before.seconds, before.faults.clone()),
        effects: watch::Sender::new(before.effects),
        faults_done: AtomicU64::new(before.faults.len() as u64),
        faults_over: AtomicBool::new(false),
        parts,
        stop,
    });

    let sampling = tokio::spawn(sample(Arc::clone(&course), Arc::clone(&publishing)));
    let pacing = AbortOnDropHandle::new(tokio::spawn(pace(Arc::clone(&course), allow)));
    let harming = tokio::spawn(harm(Arc::clone(&course)));
    Arc::clone(&publishing).run().await;
    harming.await?;
    drop(pacing);
    let published = publishing.confirmed.load(Ordering::Relaxed);
    let faults = course.faults_done.load(Ordering::Relaxed);
    println!(
        "{}: {published} messages are published, {faults} faults are done",
        plan.name.as_str()
    );

    let mut progress = before;
    progress.stuck.extend(course.drain().await?);
    course.faults_over.store(true, Ordering::Relaxed);
    progress.samples = sampling.await?;
    progress.stuck.extend(course.stage.fleet.stop(keepers).await.err());
    progress.queues.extend(course.stage.queues()?);
    progress.stuck.extend(truth::stuck(&course.stage).await?);
    truth::write(&course.stage, plan, &journals).await?;
    progress.parts += 1;
    progress.seconds = course.timeline.elapsed().as_secs_f64();
    progress.messages = published;
    progress.effects = *course.effects.borrow();
    progress.starts = course.stage.fleet.starts();
    progress.faults = course.timeline.faults();
    course.parts.note(&progress)?;
    course.conclude(&progress, options)
}

/// Lets the publisher go on with time, but neither ahead of the faults, so that each of them meets messages, nor far ahead
/// of the consumers.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of messages")]
async fn pace(course: Arc<Course>, allow: watch::Sender<u64>) {
    while !course.stop.is_cancelled() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let by_time = (course.timeline.elapsed().as_secs_f64() * course.plan.rate()) as u64;
        let by_faults = course.due_by(course.faults_done.load(Ordering::Relaxed) + 2);
        let by_effects = *course.effects.borrow() + LEAD;
        let by_all = by_time.min(by_faults).min(by_effects);
        allow.send_if_modified(|allowed| {
            let goes_on = by_all > *allowed;
            *allowed = by_all.max(*allowed);
            goes_on
        });
    }
    // Each lane goes as far as the others: the next part begins there.
    allow.send_modify(|allowed| *allowed = allowed.next_multiple_of(LANES));
}

/// How many messages may be published and not handled.
const LEAD: u64 = 20_000;

/// Strikes again and again.
async fn harm(course: Arc<Course>) {
    let journal = Journal::append(course.parts.folder().join("faults.jsonl")).unwrap();
    let nemeses = &course.plan.nemeses;
    for number in course.parts.before().faults.len()..course.plan.faults as usize {
        let nemesis = nemeses[number % nemeses.len()];
        let mut effects = course.effects.subscribe();
        let due = course.due_by(number as u64) / 2;
        tokio::select! {
            is_due = effects.wait_for(|effects| *effects >= due) => if is_due.is_err() { return },
            () = course.stop.cancelled() => return,
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
        let rest = course.plan.every.saturating_sub(begin.elapsed());
        let _ = tokio::time::timeout(rest, course.stop.cancelled()).await;
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
    let mut counter = Counter::of(&course.stage, &course.parts.folder(), course.plan.processes);
    let before = course.parts.before();
    let mut samples = before.samples.clone();
    let mut last_told = Instant::now();
    let mut looks = 0_u32;
    while !course.faults_over.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let counting = counter.count(&course.stage);
        let counted = tokio::time::timeout(Duration::from_secs(2), counting).await;
        if let Ok(Some(effects)) = counted {
            course.effects.send_replace(before.effects + effects);
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

    /// Waits until all is handled, and for a while of quiet. What is stuck instead, in words.
    async fn drain(&self) -> Result<Option<String>, Failure> {
        let (mut since, mut last) = (Instant::now(), 0);
        let mut empty_since = None;
        loop {
            let left = self.stage.queues()?;
            // One look tells little: a quorum queue counts its messages every five seconds.
            match (left.is_empty(), empty_since) {
                (false, _) => empty_since = None,
                (true, None) => empty_since = Some(Instant::now()),
                (true, Some(since)) if since.elapsed() > QUIET => return Ok(None),
                (true, Some(_)) => {}
            }
            let effects = *self.effects.borrow();
            if effects > last {
                (since, last) = (Instant::now(), effects);
            }
            if !left.is_empty() && since.elapsed() > LONGEST_STANDSTILL {
                let stuck = format!("{left:?}, and no effects for {LONGEST_STANDSTILL:?}");
                return Ok(Some(stuck));
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }

    fn conclude(&self, progress: &Progress, options: &Options) -> Result<Outcome, Failure> {
        let mut checker = Checker::new(self.plan.promise());
        let mut end = progress.end();
        for folder in self.parts.folders() {
            let mut noted = Noted::default();
            truth::tell(std::slice::from_ref(&folder), |event| {
                checker.take(event);
                noted.take(event);
            })?;
            end = noted.compare(&folder, end)?;
        }
        let verdict = checker.verdict(&end);
        println!("{verdict}");
        if !verdict.is_clean() {
            self.convict(&verdict)?;
        }
        let report = page::Report {
            plan: &self.plan,
            command: &options.command(),
            verdict: &verdict,
            parts: progress.parts,
            faults: &progress.faults,
            samples: &progress.samples,
            starts: progress.starts,
        };
        let page = report.write(&options.out)?;
        println!("the result page is {}", page.display());
        if let (true, Some(journals)) = (report.is_stopped_early(), &options.journals) {
            let (command, journals) = (options.command(), journals.display());
            println!("to go on: {command} --journals {journals} --resume");
        }
        Ok(Outcome { verdict, page })
    }

    /// Tells the history of the first few messages that something is wrong with.
    fn convict(&self, verdict: &Verdict) -> Result<(), Failure> {
        let mut events = Vec::new();
        let wrong: std::collections::HashSet<_> =
            verdict.sets().iter().flat_map(|(_, set)| set.iter().take(5).cloned()).collect();
        truth::tell(&self.parts.folders(), |event| {
            if event.id.is_empty() || wrong.contains(&event.id) {
                events.push(event.clone());
            }
        })?;
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
