//! One id in several subscriptions.

use mmate_core::{Scope, Subscription};

use crate::house::{House, counts_when, ended, everywhere, just_the_effect, stop};

everywhere! {
    one_id_in_two_scopes_runs_twice,
    one_id_through_overlapping_subscriptions_of_one_scope_runs_once,
    one_id_through_overlapping_patterns_of_one_subscription_runs_once,
    two_messages_of_one_conversation_both_run,
}

/// S31
async fn one_id_in_two_scopes_runs_twice(house: House) {
    let first = house.guard(house.builder(), just_the_effect()).await;
    let other = Subscription::per_service("other", [house.topic()]);
    let second = house.guard(other, just_the_effect()).await;
    let running = house.start([first, second]).await;
    house.publish(running.publisher(), "a").await;
    counts_when(&[&running], |counts| counts.succeeded == 2).await;
    assert_eq!(house.effects_of("a").await, 2);
    stop([running]).await;
}

/// S31, F35: the second copy is known to be an overlap.
async fn one_id_through_overlapping_subscriptions_of_one_scope_runs_once(house: House) {
    let builder = house.builder().scope(Scope::Service);
    let first = house.guard(builder, just_the_effect()).await;
    let pattern = format!("thing.{}.*", house.service);
    let other = Subscription::per_service("other", [pattern]).scope(Scope::Service);
    let second = house.guard(other, just_the_effect()).await;
    let running = house.start([first, second]).await;
    house.publish(running.publisher(), "a").await;
    let counts = counts_when(&[&running], |counts| ended(counts) == 2).await;
    assert_eq!((counts.succeeded, counts.duplicates.overlap), (1, 1));
    assert_eq!(house.effects_of("a").await, 1);
    stop([running]).await;
}

/// S31, F35
async fn one_id_through_overlapping_patterns_of_one_subscription_runs_once(house: House) {
    let patterns = [format!("thing.{}.*", house.service), format!("*.{}.#", house.service)];
    let builder = house.builder().topics(patterns);
    let running = house.start([house.guard(builder, just_the_effect()).await]).await;
    house.publish(running.publisher(), "a").await;
    house.publish(running.publisher(), "b").await;
    counts_when(&[&running], |counts| counts.succeeded == 2).await;
    let counts = running.stop_and_count().await;
    assert_eq!(counts.fetched, 2);
    assert_eq!(house.effects().await.len(), 2);
}

/// S35
async fn two_messages_of_one_conversation_both_run(house: House) {
    let running = house.instance(just_the_effect()).await;
    for id in ["a", "b"] {
        let message = house.message(id).correlation_id("conversation".parse().unwrap());
        running.publisher().publish(message).await.unwrap();
    }
    counts_when(&[&running], |counts| counts.succeeded == 2).await;
    assert_eq!(house.effects().await.len(), 2);
    stop([running]).await;
}

trait StopAndCount {
    async fn stop_and_count(self) -> mmate_core::Counts;
}

impl StopAndCount for mmate_core::Running {
    async fn stop_and_count(self) -> mmate_core::Counts {
        let stats = self.stats().clone();
        self.stop().await.unwrap();
        stats.total()
    }
}
