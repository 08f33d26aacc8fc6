//! expect: expected `Subscription`, found `SubscriptionBuilder`

use mmate_core::{Service, Subscription};

fn main() {
    let _ = Service::new("s").subscribe(Subscription::per_service("a", ["#"]));
}
