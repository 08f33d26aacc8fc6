//! The steps of `docs/examples/orders.md` that are not run elsewhere.

use crate::{Shop, assert_clean, number, result};

/// One event that three subscriptions hear, and the audit.
const EVENT: &str = r#"{"id": "order-1", "topic": "order.created.us-west", "type": "OrderCreated", "payload": {"orderId": "A-1", "sku": "lamp", "quantityChange": 1, "version": 1}}"#;

fn one_event(shop: &Shop) -> String {
    std::fs::write(shop.path("one.jsonl"), EVENT).unwrap();
    "one.jsonl".to_owned()
}

#[test]
fn one_event_has_three_effects_without_a_strategy_and_one_with_any() {
    let shop = Shop::new();
    let one = one_event(&shop);
    let run = ["--json", "--input", &one];
    let none = shop.run(&[&run[..], &["--strategy", "none"]].concat());
    assert_eq!(none.status.code(), Some(1));
    let none = result(&none);
    assert_eq!([number(&none, "fetched"), number(&none, "effects")], [4, 3], "{none}");
    for (strategy, store) in
        [("tracked", "memory"), ("tracked", "sqlite:t.db"), ("transactional", "sqlite:x.db")]
    {
        let choice = ["--strategy", strategy, "--store", store];
        let told = assert_clean(&shop.run(&[&run[..], &choice].concat()));
        let figures = ["effects", "succeeded", "duplicates"].map(|key| told[key].clone());
        assert_eq!(figures[0], 1, "{told}");
        assert_eq!(figures[1], 2, "one of the shop, and one of the audit: {told}");
        let copies = 4 + number(&told, "deferred");
        assert_eq!(number(&told, "fetched"), copies, "{told}");
    }
}
