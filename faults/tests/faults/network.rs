//! The network cuts, stops, slows down and works in one direction only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mmate_faults::{Direction, Fate, Frame, Recovery, Weather, is_long_run, until};

use crate::behind_proxy;

/// F19
#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_are_back_within_two_seconds() {
    let (scene, proxy) = behind_proxy("cut").await;
    let running = scene.shop.start().await;
    let load = scene.load().await;
    let mut times = Vec::new();
    for _ in 0..5 {
        scene.flow(50).await;
        proxy.cut();
        times.push(scene.flows_again(&load, Instant::now()).await);
    }
    Recovery::of("F19", 2.0).took_at_most("TCP connections cut: messages flow", &times);
    scene.end("F19", load, running).await;
}

/// F20: each kind of frame is cut in two, on its way to the broker and from it.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_in_the_middle_of_a_frame_loses_and_doubles_nothing() {
    type Kind = (&'static str, Direction, fn(&Frame<'_>) -> bool);
    let kinds: [Kind; 8] = [
        ("a delivery", Direction::FromBroker, |frame| frame.is_delivery()),
        ("the header of a delivery", Direction::FromBroker, |frame| frame.is_header()),
        ("the body of a delivery", Direction::FromBroker, |frame| frame.is_body()),
        ("a confirm", Direction::FromBroker, |frame| frame.is_ack()),
        ("an acknowledgement", Direction::ToBroker, |frame| frame.is_ack()),
        ("a publish", Direction::ToBroker, |frame| frame.is_publish()),
        ("the header of a publish", Direction::ToBroker, |frame| frame.is_header()),
        ("the body of a publish", Direction::ToBroker, |frame| frame.is_body()),
    ];
    let (scene, proxy) = behind_proxy("torn").await;
    let running = scene.shop.start().await;
    let load = scene.load().await;
    let mut times = Vec::new();
    for (what, way, is_kind) in kinds {
        scene.flow(30).await;
        let cut = Arc::new(AtomicBool::new(false));
        let cuts = Arc::clone(&cut);
        proxy.rule(move |direction, frame| {
            match direction == way && is_kind(frame) && !cuts.swap(true, Ordering::SeqCst) {
                true => Fate::CutInside,
                false => Fate::Pass,
            }
        });
        until(&format!("{what} is cut"), async || cut.load(Ordering::SeqCst).then_some(())).await;
        times.push(scene.flows_again(&load, Instant::now()).await);
    }
    Recovery::of("F20", 2.0).took_at_most("cut inside a frame: messages flow", &times);
    scene.end("F20", load, running).await;
}

/// F21: what gets lost is sent again by TCP, which takes time; that is no reason to give a connection up.
#[tokio::test(flavor = "multi_thread")]
async fn a_lossy_and_a_narrow_network_end_no_connection() {
    let (mut scene, proxy) = behind_proxy("weather").await;
    scene.shop.heartbeat = Duration::from_secs(2);
    let running = scene.shop.start().await;
    let load = scene.load().await;
    scene.flow(50).await;
    let connections = proxy.accepted();
    let spell = Duration::from_secs(if is_long_run() { 60 } else { 8 });
    for (what, weather) in [
        ("5 % of all segments lost", Weather::lossy(0.05)),
        ("100 kbit/s", Weather::narrow(100_000)),
    ] {
        let before = scene.effects.count().await;
        proxy.weather(weather);
        tokio::time::sleep(spell).await;
        let effects = scene.effects.count().await - before;
        println!("F21: {what}: {effects} effects in {spell:?}");
        assert!(effects > 0, "{what}");
    }
    assert_eq!(proxy.accepted(), connections, "a connection was given up without need");
    proxy.weather(Weather::default());
    let time = scene.flows_again(&load, Instant::now()).await;
    Recovery::of("F21", 5.0)
        .took("5 % loss, then 100 kbit/s: messages flow at full speed after it", time);
    scene.end("F21", load, running).await;
}

/// F22: nothing comes and nothing goes, and nobody says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_black_hole_is_noticed_by_the_heartbeat() {
    // In the short run everything is a fifth.
    let fifths = if is_long_run() { 5 } else { 1 };
    let noticing = Recovery::of("F22", 4.0 * f64::from(fifths));
    let recovering = Recovery::of("F22", 10.0);
    let hole = Duration::from_secs(12) * fifths;
    let (mut scene, proxy) = behind_proxy("hole").await;
    scene.shop.heartbeat = Duration::from_secs(2) * fifths;
    scene.shop.answer_timeout = Duration::from_secs(2) * fifths;
    let running = scene.shop.start().await;
    let load = scene.load().await;
    scene.flow(50).await;
    let connections = proxy.accepted();
    proxy.hold_all(true);
    let begin = Instant::now();
    let what = "all three connections are given up";
    until(what, async || (proxy.accepted() >= connections + 3).then_some(())).await;
    let what = format!("black hole: noticed (heartbeat {:?})", scene.shop.heartbeat);
    noticing.took(&what, begin.elapsed());
    tokio::time::sleep(hole.saturating_sub(begin.elapsed())).await;
    proxy.hold_all(false);
    let time = scene.flows_again(&load, Instant::now()).await;
    recovering.took(&format!("black hole for {hole:?}: messages flow after it"), time);
    scene.end("F22", load, running).await;
}

/// F23: deliveries arrive, acknowledgements do not.
#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_works_in_one_direction_only_doubles_nothing() {
    let (mut scene, proxy) = behind_proxy("one-way").await;
    scene.shop.heartbeat = Duration::from_secs(2);
    scene.shop.answer_timeout = Duration::from_secs(2);
    let running = scene.shop.start().await;
    let load = scene.load_from_elsewhere().await;
    scene.flow(50).await;
    let connections = proxy.accepted();
    proxy.hold(Direction::ToBroker, true);
    let begin = Instant::now();
    until("it is noticed", async || (proxy.accepted() > connections).then_some(())).await;
    // By the broker, which gives a silent client twice its heartbeat and a little more, or by the
    // service, whose questions get no answer. Held acknowledgements may still arrive afterwards.
    let noticing = Recovery::of("F23", 8.0);
    noticing.took("only deliveries arrive: noticed (heartbeat 2s)", begin.elapsed());
    proxy.hold(Direction::ToBroker, false);
    let time = scene.flows_again(&load, Instant::now()).await;
    Recovery::of("F23", 10.0).took("only deliveries arrived: messages flow after it", time);
    scene.end("F23", load, running).await;
}
