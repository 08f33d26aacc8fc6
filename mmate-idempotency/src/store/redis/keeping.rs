//! Whether a server keeps what it was given.

use std::collections::HashMap;

use redis::{Cmd, FromRedisValue, RedisResult, Value};

use super::link::Wire;

/// What a server says of how it keeps its data; absent where it does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Keeping {
    /// It writes an append-only file.
    pub(super) logs: Option<bool>,
    /// Each write is on the disk before it is answered.
    pub(super) syncs: Option<bool>,
    /// It forgets what it should keep when its memory is full.
    pub(super) evicts: Option<bool>,
}

impl Keeping {
    /// Asks the servers; the weakest of them counts.
    pub(super) async fn ask(wire: &Wire) -> RedisResult<Self> {
        let mut settings = settings_of(wire, &redis::cmd("INFO")).await?;
        // Many hosted servers refuse this one.
        let config = redis::cmd("CONFIG").arg("GET").arg("append*").take();
        if let Ok(read) = settings_of(wire, &config).await {
            for (settings, read) in settings.iter_mut().zip(read) {
                settings.extend(read);
            }
        }
        let weakest = settings.iter().map(Self::read).reduce(Self::and);
        Ok(weakest.unwrap_or_default())
    }

    fn read(settings: &HashMap<String, String>) -> Self {
        let is = |name: &str, value: &str| settings.get(name).map(|found| found == value);
        let policy = is("maxmemory_policy", "noeviction").map(|keeps| !keeps);
        let is_bounded = is("maxmemory", "0").map(|unbounded| !unbounded);
        Self {
            logs: is("aof_enabled", "1").or(is("appendonly", "yes")),
            syncs: is("appendfsync", "always"),
            evicts: match (policy, is_bounded) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
        }
    }

    fn and(self, other: Self) -> Self {
        let all = |one: Option<bool>, other: Option<bool>| match (one, other) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        };
        let not = |evicts: Option<bool>| evicts.map(|evicts| !evicts);
        Self {
            logs: all(self.logs, other.logs),
            syncs: all(self.syncs, other.syncs),
            evicts: not(all(not(self.evicts), not(other.evicts))),
        }
    }

    /// What keeps the server from being durable, as a server that says nothing is not asked about.
    pub(super) fn flaws(self) -> Vec<&'static str> {
        let mut flaws = Vec::new();
        if self.logs == Some(false) {
            flaws.push("it writes no append-only file (appendonly no), so a restart forgets");
        } else if self.syncs == Some(false) {
            flaws.push(
                "it answers before the data is on the disk (appendfsync is not always), so the death \
                 of its machine forgets",
            );
        }
        if self.evicts == Some(true) {
            flaws
                .push("it drops keys when its memory is full (maxmemory-policy is not noeviction)");
        }
        flaws
    }
}

/// What each server says of itself.
async fn settings_of(wire: &Wire, cmd: &Cmd) -> RedisResult<Vec<HashMap<String, String>>> {
    wire.ask_all(cmd.clone()).await?.into_iter().map(parse).collect()
}

/// `INFO` answers with lines, `CONFIG GET` with pairs.
fn parse(answer: Value) -> RedisResult<HashMap<String, String>> {
    if matches!(answer, Value::Array(_) | Value::Map(_)) {
        return Ok(HashMap::from_redis_value(answer)?);
    }
    let text = String::from_redis_value(answer)?;
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeping(pairs: &[(&str, &str)]) -> Keeping {
        let owned = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Keeping::read(&owned.collect())
    }

    #[test]
    fn what_a_server_does_not_say_is_not_known() {
        assert_eq!(keeping(&[]), Keeping::default());
        let without_config = keeping(&[("aof_enabled", "1"), ("maxmemory_policy", "noeviction")]);
        let expected = Keeping { logs: Some(true), syncs: None, evicts: Some(false) };
        assert_eq!(without_config, expected);
    }

    #[test]
    fn memory_without_bounds_is_never_full() {
        let lru = ("maxmemory_policy", "allkeys-lru");
        assert_eq!(keeping(&[lru, ("maxmemory", "0")]).evicts, Some(false));
        assert_eq!(keeping(&[lru, ("maxmemory", "1000")]).evicts, Some(true));
        assert_eq!(keeping(&[lru]).evicts, None);
    }

    #[test]
    fn the_weakest_server_counts() {
        let strong = Keeping { logs: Some(true), syncs: Some(true), evicts: Some(false) };
        let weak = Keeping { logs: Some(false), syncs: None, evicts: Some(true) };
        assert_eq!(strong.and(strong), strong);
        assert_eq!(strong.and(weak), weak);
        assert_eq!(weak.and(strong), weak);
    }
}
