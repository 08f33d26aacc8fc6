//! The stores that are servers.

use mmate_test_support::{MariaDb, PostgreSql, redis_url};

use crate::{Shop, assert_clean, number};

/// Clean under chaos with four instances, and then a second run on what the first one has left.
fn assert_clean_twice(strategy: &str, store: &str) {
    let shop = Shop::new();
    let events = shop.some_events(300);
    let run = ["--json", "--strategy", strategy, "--store", store, "--input"];
    let run = [&run[..], &[events.to_str().unwrap()]].concat();
    let chaos = [&run[..], &["--fresh", "--chaos", "--instances", "4"]].concat();
    let first = assert_clean(&shop.run(&chaos));
    let second = assert_clean(&shop.run(&run));
    assert_eq!(second["effects"], first["effects"], "{strategy} on {store}");
    assert_eq!(number(&second, "succeeded"), 0, "{second}");
}

#[test]
fn on_postgresql_every_strategy_is_clean() {
    let server = PostgreSql::start().unwrap();
    for strategy in ["transactional", "grouped", "tracked"] {
        assert_clean_twice(strategy, &server.url());
    }
}

#[test]
fn on_mariadb_every_strategy_is_clean() {
    let server = MariaDb::start().unwrap();
    for strategy in ["transactional", "grouped", "tracked"] {
        assert_clean_twice(strategy, &server.url());
    }
}

/// The shop's tables are of a run, and so are the records.
#[test]
fn with_redis_each_run_is_clean_and_begins_anew() {
    let shop = Shop::new();
    let (events, url) = (shop.some_events(300), redis_url());
    let run = ["--json", "--strategy", "tracked", "--store", &url, "--chaos", "--instances", "4"];
    let run = [&run[..], &["--input", events.to_str().unwrap()]].concat();
    let (first, second) = (assert_clean(&shop.run(&run)), assert_clean(&shop.run(&run)));
    assert_eq!(second["effects"], first["effects"]);
    assert!(number(&second, "succeeded") > 0, "{second}");
}
