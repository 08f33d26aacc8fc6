//! Scripts that are not about records, on the connection that those use.

use redis::{FromRedisValue, Script};
use tokio::time::timeout;

use super::RedisStore;
use super::calls::is_no_script;
use super::failure::{failed, is_of_the_connection};
use super::link::silence;
use crate::store::StoreError;

impl RedisStore {
    /// What all keys of this store begin with.
    pub(crate) fn key_prefix(&self) -> &str {
        self.calls().settings.prefix.as_str()
    }

    /// Has the server run a script on keys of one hash slot.
    pub(crate) async fn eval<T: FromRedisValue>(
        &self,
        script: &Code,
        keys: &[String],
        args: &[&[u8]],
        attempted: &'static str,
    ) -> Result<T, StoreError> {
        let super::calls::Calls { link, limit, .. } = self.calls();
        let cmd = |name: &str, code: &str| {
            let mut cmd = redis::cmd(name);
            cmd.arg(code).arg(keys.len()).arg(keys).arg(args);
            cmd
        };
        let wire = link.wire(*limit).await?;
        let asked = timeout(*limit, async {
            match wire.run(&cmd("EVALSHA", script.hash())).await {
                // A server that was restarted, or is new, does not know the script.
                Err(error) if is_no_script(&error) => wire.run(&cmd("EVAL", script.text)).await,
                answer => answer,
            }
        });
        let answer = asked.await.unwrap_or_else(|_| Err(silence(*limit)));
        let read = answer.and_then(|value| T::from_redis_value(value).map_err(Into::into));
        if let Err(error) = &read
            && is_of_the_connection(error)
        {
            link.give_up(&wire).await;
        }
        read.map_err(failed(attempted))
    }
}

/// A script's text and its hash.
pub(crate) struct Code {
    text: &'static str,
    script: Script,
}

impl Code {
    pub(crate) fn new(text: &'static str) -> Self {
        Self { text, script: Script::new(text) }
    }

    fn hash(&self) -> &str {
        self.script.get_hash()
    }
}
