use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
};

use mmate_test_support::{CtlError, RabbitMq};

use crate::left_behind::{assert_nothing_is_left, processes};

#[test]
fn a_broker_speaks_amqp_and_keeps_its_data_over_a_kill_and_a_stop() {
    let mut broker = RabbitMq::start().unwrap();
    let url = broker.url();
    assert_eq!(greeting(&broker), [1, 0, 0]);

    broker.ctl(&["add_vhost", "kept"]).unwrap();
    // Otherwise the node may keep it to itself for a moment.
    broker.ctl(&["eval", "mnesia:sync_log()."]).unwrap();
    broker.kill();
    assert!(TcpStream::connect(("127.0.0.1", broker.port())).is_err());
    broker.start_again().unwrap();
    assert!(broker.ctl(&["list_vhosts"]).unwrap().contains("kept"));

    broker.stop().unwrap();
    assert!(TcpStream::connect(("127.0.0.1", broker.port())).is_err());
    broker.start_again().unwrap();
    assert!(broker.ctl(&["list_vhosts"]).unwrap().contains("kept"));
    assert_eq!(greeting(&broker), [1, 0, 0]);
    assert_eq!(broker.url(), url);
}

#[test]
fn two_brokers_at_once_do_not_know_each_other() {
    let other = thread::spawn(|| RabbitMq::start().unwrap());
    let mut broker = RabbitMq::start().unwrap();
    let other = other.join().unwrap();
    assert_ne!(broker.port(), other.port());
    broker.ctl(&["add_vhost", "mine"]).unwrap();
    assert!(!other.ctl(&["list_vhosts"]).unwrap().contains("mine"));
    assert_eq!(other.ctl(&["eval", "nodes()."]).unwrap().trim(), "[]");

    let folder = broker.folder().to_owned();
    assert_ne!(processes(&folder), Vec::<String>::new());
    broker.kill();
    drop(broker);
    assert_nothing_is_left(&folder);
    assert_eq!(greeting(&other), [1, 0, 0]);
}

#[test]
fn a_broker_takes_settings_and_plugins_and_listens_on_loopback_only() {
    let broker = RabbitMq::options()
        .config("consumer_timeout = 61000")
        .plugin("rabbitmq_consistent_hash_exchange")
        .start()
        .unwrap();
    let timeout = broker.ctl(&["eval", "application:get_env(rabbit, consumer_timeout)."]).unwrap();
    assert_eq!(timeout.trim(), "{ok,61000}");
    let plugins = broker.ctl(&["eval", "rabbit_plugins:active()."]).unwrap();
    assert_eq!(plugins.trim(), "[rabbitmq_consistent_hash_exchange]");
    let addresses = "lists:usort([A || P <- erlang:ports(), erlang:port_info(P, name) =:= {name, \"tcp_inet\"}, \
                     {ok, {A, _}} <- [inet:sockname(P)]]).";
    assert_eq!(broker.ctl(&["eval", addresses]).unwrap().trim(), "[{127,0,0,1}]");
}

#[test]
fn a_failed_command_says_which_and_why() {
    let broker = RabbitMq::start().unwrap();
    let error = broker.ctl(&["delete_vhost", "no-such-host"]).unwrap_err();
    assert!(matches!(error, CtlError::Failed { .. }));
    let message = error.to_string();
    assert!(message.contains("rabbitmqctl delete_vhost no-such-host"), "{message}");
    assert!(message.contains("does not exist"), "{message}");

    let folder = broker.folder().to_owned();
    drop(broker);
    assert_nothing_is_left(&folder);
}

/// The start of the first frame: a method, on channel 0.
fn greeting(broker: &RabbitMq) -> [u8; 3] {
    let mut stream = TcpStream::connect(("127.0.0.1", broker.port())).unwrap();
    stream.write_all(b"AMQP\x00\x00\x09\x01").unwrap();
    let mut start = [0; 3];
    stream.read_exact(&mut start).unwrap();
    start
}
