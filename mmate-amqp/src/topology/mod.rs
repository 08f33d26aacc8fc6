//! Exchanges, queues and bindings, made or checked as a plan says.

mod arguments;
mod delay;
mod explain;
mod ladder;
mod steps;
mod waiting;

use std::collections::BTreeSet;

use mmate_core::message::wire;
use mmate_core::transport::{
    Declare, Partition, QueueKind, QueueMode, QueuePlan, TransportError, TransportErrorKind,
};

pub(crate) use delay::DelayQueues;
pub(crate) use explain::explain;
pub(crate) use ladder::Rung;
pub(crate) use waiting::{Target, Waiting};

use self::steps::Step;
use crate::convert::short;
use crate::failure::Failure;
use crate::link::Session;

/// The exchanges that are always there.
pub(crate) const EXCHANGES: [&str; 5] =
    [wire::EVENTS, wire::COMMANDS, wire::QUERIES, wire::MESSAGES, wire::DEAD_LETTERS];

/// Makes the exchanges that publishers and subscribers of mmate meet at.
pub(crate) async fn declare_exchanges(session: &Session) -> Result<(), TransportError> {
    take(session, EXCHANGES.map(Step::Exchange).into()).await
}

/// Whether an exchange is there.
pub(crate) async fn look_for_exchange(session: &Session, name: &str) -> Result<(), Failure> {
    session.aside(async |channel| Step::Exchange(name).look(session, channel).await).await
}

/// Makes a queue with all that belongs to it, or checks it, as the plan says.
pub(crate) async fn declare(
    session: &Session,
    plan: &QueuePlan,
    delivery_limit: u32,
) -> Result<(), TransportError> {
    check_names(plan)?;
    match plan.declare {
        Declare::LeaveAlone => return Ok(()),
        Declare::Verify => return verify(session, plan).await,
        _ => {}
    }
    if let Some(left) = plan.partition.as_ref().and_then(Partition::left_over) {
        refuse_left_over(session, plan, &left).await?;
    }
    take(session, steps(plan, delivery_limit, &EXCHANGES)).await
}

/// Makes again what somebody may have deleted of it. If nothing is missing, nothing is refused
/// either, which both sides would log.
pub(crate) async fn check(
    session: &Session,
    plan: &QueuePlan,
    delivery_limit: u32,
) -> Result<(), TransportError> {
    if !plan.declare.makes_things() {
        return declare(session, plan, delivery_limit).await;
    }
    let steps = steps(plan, delivery_limit, &[wire::DEAD_LETTERS]);
    let looked = session.aside(async |channel| {
        for step in steps {
            step.look(session, channel).await?;
        }
        Ok(())
    });
    match looked.await {
        Ok(()) => Ok(()),
        Err(_) => declare(session, plan, delivery_limit).await,
    }
}

/// A part of a queue that is above the number asked for would be given messages for ever, and
/// nobody would take them.
async fn refuse_left_over(
    session: &Session,
    plan: &QueuePlan,
    left: &str,
) -> Result<(), TransportError> {
    let mut beyond = QueuePlan::new(left, plan.mode);
    beyond.declare = Declare::Passive;
    let step = Step::Queue { plan: &beyond, delivery_limit: 0 };
    if session.aside(async |channel| step.look(session, channel).await).await.is_err() {
        return Ok(());
    }
    let attempted = format!("declare the queue {}", plan.name);
    let hint = format!(
        "{left} is above the number of partitions asked for, and would be given messages that \
         nobody takes: let it run empty and delete it, or ask for as many as there are"
    );
    Err(TransportError::new(TransportErrorKind::Mismatch, attempted).hint(hint))
}

/// Looks whether all is there that can be looked for.
async fn verify(session: &Session, plan: &QueuePlan) -> Result<(), TransportError> {
    for step in steps(plan, 0, &[wire::DEAD_LETTERS]) {
        if !step.can_be_looked_for() {
            continue;
        }
        let looked = session.aside(async |channel| step.look(session, channel).await).await;
        looked.map_err(|failure| step.missing(failure))?;
    }
    Ok(())
}

fn steps<'a>(plan: &'a QueuePlan, delivery_limit: u32, exchanges: &[&'a str]) -> Vec<Step<'a>> {
    let mut exchanges: BTreeSet<_> = exchanges.iter().copied().collect();
    exchanges.extend(plan.bindings.iter().map(|binding| binding.exchange.as_str()));
    // The queue first: if it is not as it should be, nothing is made.
    let mut steps = vec![Step::Queue { plan, delivery_limit }];
    steps.extend(exchanges.into_iter().map(Step::Exchange));
    if plan.dead_letters {
        steps.extend([Step::DeadLetterQueue(plan), Step::DeadLetterBinding(plan)]);
    }
    match &plan.partition {
        None => steps.extend(plan.bindings.iter().map(|binding| Step::Binding { plan, binding })),
        Some(partition) => {
            steps.push(Step::PartitionExchange(partition));
            // A part is there before anything is routed to it, and the first before all others.
            steps.push(Step::PartitionBinding { plan, partition });
            let route = |binding| Step::PartitionRoute { partition, binding };
            steps.extend(plan.bindings.iter().map(route));
        }
    }
    steps
}

/// Makes a queue's dead-letter queue.
pub(crate) async fn declare_dead_letter_queue(
    session: &Session,
    plan: &QueuePlan,
) -> Result<(), TransportError> {
    let mut steps = vec![Step::Exchange(wire::DEAD_LETTERS)];
    steps.extend([Step::DeadLetterQueue(plan), Step::DeadLetterBinding(plan)]);
    take(session, steps).await
}

/// Whether a queue that was made here has the broker dead-letter what is refused.
pub(crate) fn dead_letters_by_itself(plan: &QueuePlan) -> bool {
    plan.declare == Declare::Create
        && plan.mode != QueueMode::PerInstance
        && plan.kind == QueueKind::Quorum
}

/// Takes the steps in their order. A refusal ends the channel, so what comes after it has another.
async fn take(session: &Session, steps: Vec<Step<'_>>) -> Result<(), TransportError> {
    let mut steps = steps.into_iter();
    let mut refused = None;
    loop {
        let opened = session.channel().await;
        let channel = opened.map_err(|failure| failure.into_error("declare what is needed"))?;
        if let Some((step, failure)) = refused.take() {
            Step::settle_for_less(step, session, &channel, failure).await?;
        }
        for step in steps.by_ref() {
            if let Err(failure) = step.take(session, &channel).await {
                if matches!(failure, Failure::UnknownExchangeType(_)) {
                    // The connection is gone with it.
                    return Err(step.error(failure));
                }
                refused = Some((step, failure));
                break;
            }
        }
        if refused.is_none() {
            session.close_channel(&channel).await;
            return Ok(());
        }
    }
}

/// lapin panics over a name that is too long, so none gets there.
fn check_names(plan: &QueuePlan) -> Result<(), TransportError> {
    let configuration = |wrong: String| {
        let attempted = format!("declare the queue {}", plan.name);
        TransportError::new(TransportErrorKind::Configuration, attempted).caused_by(wrong)
    };
    if plan.name.is_empty() {
        return Err(configuration("a queue's name is not empty".to_owned()));
    }
    let longest = Rung::longest().queue_of(&plan.name);
    short("name of the queue's longest delay queue", &longest).map_err(configuration)?;
    if let Some(partition) = &plan.partition {
        short("name of the partitions' exchange", &partition.exchange()).map_err(configuration)?;
        short("name of the last partition", &format!("{}.65535", partition.of))
            .map_err(configuration)?;
    }
    for binding in &plan.bindings {
        short("exchange's name", &binding.exchange).map_err(configuration)?;
    }
    Ok(())
}
