//! A topology as text.

use std::fmt;

use super::{MadeQueue, PlannedQueue, QueueRole, Topology};
use crate::transport::{Declare, QueueMode};

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "service {}", self.service)?;
        for queue in &self.queues {
            writeln!(f)?;
            write!(f, "{queue}")?;
        }
        Ok(())
    }
}

impl fmt::Display for PlannedQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = &self.plan;
        writeln!(f, "queue {}", plan.name)?;
        let shared = match plan.mode {
            QueueMode::Shared => "shared by everybody who names it",
            QueueMode::PerService => "shared by the instances of the service",
            QueueMode::PerInstance => "of this instance alone, and ends with it",
        };
        writeln!(f, "  taken by  {} ({shared})", self.subscription)?;
        let how = match plan.declare {
            Declare::Create => "made if it is missing",
            Declare::Passive => "must be there; what belongs to it is made",
            Declare::Verify => "must be there, with all that belongs to it; nothing is made",
            Declare::LeaveAlone => "left alone",
        };
        writeln!(f, "  declared  {how}")?;
        for binding in &plan.bindings {
            let (exchange, pattern) = (&binding.exchange, &binding.pattern);
            write!(f, "  routed    {pattern} from {exchange}")?;
            let key = pattern.binding_key();
            match *key == *pattern.to_string() {
                true => writeln!(f)?,
                false => writeln!(f, " (bound as {key}, the rest is filtered)")?,
            }
        }
        if self.made.is_empty() {
            writeln!(f, "  dead      {}", plan.dead_letter_queue())?;
        }
        for made in &self.made {
            write!(f, "{made}")?;
        }
        Ok(())
    }
}

impl fmt::Display for MadeQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.role {
            QueueRole::Work => writeln!(f, "  made as   {}", self.kind)?,
            QueueRole::DeadLetters => writeln!(f, "  dead      {} ({})", self.name, self.kind)?,
            QueueRole::Delay => writeln!(f, "  delay     {} ({})", self.name, self.kind)?,
        }
        for (name, value) in &self.arguments {
            writeln!(f, "              {name} = {value}")?;
        }
        Ok(())
    }
}
