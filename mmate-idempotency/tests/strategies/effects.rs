//! Effects, and who is inside of a handler.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An effect that took place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Effect {
    pub(crate) id: String,
    pub(crate) attempt: u32,
}

/// How many handlers are inside with one id, and how many were at most.
#[derive(Clone, Default)]
pub(crate) struct Inside(Arc<Mutex<HashMap<String, (usize, usize)>>>);

impl Inside {
    pub(crate) fn enter(&self, id: &str) -> Entered {
        let mut all = self.0.lock().unwrap();
        let (now, most) = all.entry(id.to_owned()).or_default();
        *now += 1;
        *most = (*most).max(*now);
        Entered { inside: self.clone(), id: id.to_owned() }
    }

    pub(crate) fn most(&self, id: &str) -> usize {
        self.0.lock().unwrap().get(id).map_or(0, |(_, most)| *most)
    }
}

pub(crate) struct Entered {
    inside: Inside,
    id: String,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.inside.0.lock().unwrap().get_mut(&self.id).unwrap().0 -= 1;
    }
}

/// A payload that counts how often it is decoded.
#[derive(Debug, Clone)]
pub(crate) struct Probe(pub(crate) String);

static DECODED: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl Probe {
    /// How often a payload with this text was decoded in this process.
    pub(crate) fn decoded(text: &str) -> usize {
        DECODED.lock().unwrap().iter().filter(|decoded| *decoded == text).count()
    }
}

impl Serialize for Probe {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Probe {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        DECODED.lock().unwrap().push(text.clone());
        Ok(Self(text))
    }
}
