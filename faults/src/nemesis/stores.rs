//! Harm to the servers that have the records.

use std::time::Duration;

use super::Struck;
use crate::soak::Stage;

pub(super) fn kill_database(stage: &Stage) -> Struck {
    tokio::task::block_in_place(|| {
        let mut database = stage.postgres.as_ref().unwrap().lock().unwrap();
        database.kill();
        database.start_again().unwrap();
    });
    Struck::nobody("PostgreSQL")
}

pub(super) fn terminate_database(stage: &Stage) -> Struck {
    tokio::task::block_in_place(|| {
        let mut database = stage.postgres.as_ref().unwrap().lock().unwrap();
        database.stop().unwrap();
        database.start_again().unwrap();
    });
    Struck::nobody("PostgreSQL")
}

pub(super) async fn freeze_database(stage: &Stage) -> Struck {
    stage.postgres.as_ref().unwrap().lock().unwrap().pause();
    tokio::time::sleep(Duration::from_secs(5)).await;
    stage.postgres.as_ref().unwrap().lock().unwrap().resume();
    Struck::nobody("PostgreSQL")
}

pub(super) async fn end_sessions(stage: &Stage) -> Struck {
    const END: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                       WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
    let ended = match stage.database().await {
        Ok(mut database) => sqlx::query_scalar::<_, i64>(END).fetch_one(&mut database).await,
        Err(error) => Err(error),
    };
    Struck::nobody(match ended {
        Ok(count) => format!("{count} sessions"),
        Err(error) => format!("nobody: {error}"),
    })
}

pub(super) fn kill_redis(stage: &Stage) -> Struck {
    tokio::task::block_in_place(|| {
        let mut redis = stage.redis.as_ref().unwrap().lock().unwrap();
        redis.kill();
        redis.start_again().unwrap();
    });
    // Whoever had a claim may have lost its lease meanwhile, and not been able to note its effect.
    Struck { whom: "Redis".to_owned(), harmed: stage.fleet.instances() }
}

pub(super) async fn freeze_redis(stage: &Stage) -> Struck {
    let harmed = stage.fleet.instances();
    stage.redis.as_ref().unwrap().lock().unwrap().pause();
    tokio::time::sleep(Duration::from_secs(5)).await;
    stage.redis.as_ref().unwrap().lock().unwrap().resume();
    Struck { whom: "Redis".to_owned(), harmed }
}
