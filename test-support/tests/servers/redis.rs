use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    panic,
    time::Duration,
};

use mmate_test_support::{Redis, RedisCluster, RedisSentinel, StartFailure};

use crate::left_behind::{assert_nothing_is_left, processes};

#[test]
fn a_redis_answers_and_keeps_what_it_acknowledged_over_a_kill_and_a_stop() {
    let mut redis = Redis::start().unwrap();
    let url = redis.url();
    assert_eq!(ask(&redis, "SET kept yes"), "+OK");
    redis.kill();
    assert!(TcpStream::connect(("127.0.0.1", redis.port())).is_err());
    redis.start_again().unwrap();
    assert_eq!(ask(&redis, "STRLEN kept"), ":3");
    redis.stop().unwrap();
    assert!(TcpStream::connect(("127.0.0.1", redis.port())).is_err());
    redis.start_again().unwrap();
    assert_eq!(ask(&redis, "STRLEN kept"), ":3");
    assert_eq!(redis.url(), url);
}

#[test]
fn a_redis_without_its_append_only_file_forgets() {
    let mut redis = Redis::options().config("appendonly no").start().unwrap();
    assert_eq!(ask(&redis, "SET kept yes"), "+OK");
    redis.kill();
    redis.start_again().unwrap();
    assert_eq!(ask(&redis, "STRLEN kept"), ":0");
}

#[test]
fn a_paused_redis_accepts_connections_but_is_silent_until_it_resumes() {
    let redis = Redis::start().unwrap();
    redis.pause();
    let mut stream = TcpStream::connect(("127.0.0.1", redis.port())).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    stream.write_all(b"PING\r\n").unwrap();
    let mut answer = String::new();
    let mut reader = BufReader::new(&stream);
    reader.read_line(&mut answer).unwrap_err();
    redis.resume();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    reader.read_line(&mut answer).unwrap();
    assert_eq!(answer, "+PONG\r\n");
}

#[test]
fn a_paused_redis_can_be_stopped() {
    let mut redis = Redis::start().unwrap();
    redis.pause();
    redis.stop().unwrap();
}

#[test]
fn a_redis_that_ended_by_itself_starts_again() {
    let mut redis = Redis::start().unwrap();
    let _ = ask(&redis, "SHUTDOWN NOSAVE");
    redis.start_again().unwrap();
    assert_eq!(ask(&redis, "PING"), "+PONG");
}

#[test]
fn a_dropped_redis_leaves_nothing() {
    let redis = Redis::start().unwrap();
    let folder = redis.folder().to_owned();
    assert_ne!(processes(&folder), Vec::<String>::new());
    drop(redis);
    assert_nothing_is_left(&folder);
}

#[test]
fn a_test_that_panics_leaves_nothing() {
    let redis = Redis::start().unwrap();
    let folder = redis.folder().to_owned();
    let test = panic::AssertUnwindSafe(move || {
        let _redis = redis;
        panic!("as a failed assertion does");
    });
    panic::catch_unwind(test).unwrap_err();
    assert_nothing_is_left(&folder);
}

#[test]
fn a_redis_that_does_not_start_shows_what_it_said_and_leaves_nothing() {
    let error = Redis::options().config("no-such-setting 1").start().unwrap_err();
    assert_eq!(error.to_string(), "start Redis");
    let StartFailure::Ended { program, log, .. } = error.failure else { panic!("{error:?}") };
    assert_eq!(program, "redis-server");
    assert!(log.to_string().contains("no-such-setting"), "{log}");
}

#[test]
fn the_nodes_of_a_cluster_serve_each_its_share_and_leave_nothing() {
    let cluster = RedisCluster::start(3).unwrap();
    assert_eq!(cluster.urls().len(), 3);
    // The slots of these keys, as `CLUSTER KEYSLOT` says: 15495, 3300 and 7365.
    for (key, owner) in [("a", 2), ("b", 0), ("c", 1)] {
        for (number, node) in cluster.nodes().iter().enumerate() {
            let answer = ask(node, &format!("SET {key} yes"));
            let expected = if number == owner { "+OK" } else { "-MOVED" };
            assert!(answer.starts_with(expected), "{key} on {number}: {answer}");
        }
    }
    let folders: Vec<_> = cluster.nodes().iter().map(|node| node.folder().to_owned()).collect();
    drop(cluster);
    folders.iter().for_each(|folder| assert_nothing_is_left(folder));
}

#[test]
fn when_the_master_is_killed_the_sentinels_make_the_replica_the_master() {
    let mut redis = RedisSentinel::start(3).unwrap();
    assert_eq!(redis.urls().len(), 3);
    assert_eq!(ask(redis.master(), "SET kept yes"), "+OK");
    assert_eq!(ask(redis.master(), "WAIT 1 10000"), ":1");
    redis.master().kill();
    redis.wait_for_failover();
    assert_eq!(ask(redis.replica(), "STRLEN kept"), ":3");
    assert_eq!(ask(redis.replica(), "SET kept longer"), "+OK");
    let folder = redis.replica().folder().to_owned();
    drop(redis);
    assert_nothing_is_left(&folder);
}

#[test]
fn an_answer_may_be_an_error_and_a_list_comes_as_lines() {
    let redis = Redis::start().unwrap();
    assert_eq!(redis.ask("CONFIG GET appendonly").unwrap(), "appendonly\nyes");
    assert!(redis.ask("NONSENSE").unwrap_err().to_string().contains("unknown command"));
}

/// The first line of the answer.
fn ask(redis: &Redis, command: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", redis.port())).unwrap();
    stream.write_all(format!("{command}\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    answer.trim_end().to_owned()
}
