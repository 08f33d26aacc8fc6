//! try
use std::time::Instant;
fn main() {
    let t = Instant::now();
    let b = mmate_test_support::RabbitMq::start().unwrap();
    println!("started {:?} {}", t.elapsed(), b.url());
    println!("{}", String::from_utf8_lossy(&std::process::Command::new("sh").args(["-c", "cat /tmp/mmate-rabbitmq-*/log/rabbitmq.log | cut -c11-180; cat /tmp/mmate-rabbitmq-*/*.log; ls -la --time-style=full-iso /tmp/mmate-rabbitmq-*/ | cut -c20-"]).output().unwrap().stdout));
}
