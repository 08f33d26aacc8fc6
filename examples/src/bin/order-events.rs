//! Writes the order events that `orders` reads by default: `cargo run --bin order-events > FILE`.
//!
//! The same seed gives the same file. It holds what a shop's bus holds on a bad day: orders,
//! payments, shipments, customers and products of five regions, some events published twice, some
//! out of order, a few lines that are no events and a few whose payload is of the wrong shape.

use std::io::{self, BufWriter, Write};

use clap::Parser;
use fastrand::Rng;
use serde_json::{Value, json};
use uuid::Builder;

/// Writes order events as JSON lines to standard output.
#[derive(Parser)]
struct Options {
    /// How many orders are placed; each makes about five events.
    #[arg(long, default_value_t = 1_600)]
    orders: u64,
    /// The same seed gives the same events.
    #[arg(long, default_value_t = 20_261_121)]
    seed: u64,
}

const REGIONS: [(&str, &str); 5] = [
    ("us-west", "USD"),
    ("us-east", "USD"),
    ("eu-west", "EUR"),
    ("eu-central", "EUR"),
    ("ap-south", "INR"),
];

const PRODUCTS: [(&str, u64); 12] = [
    ("KETTLE-17", 3_499),
    ("TEAPOT-04", 2_750),
    ("MUG-BLUE", 1_295),
    ("MUG-GREEN", 1_295),
    ("GRINDER-2", 8_900),
    ("SCALE-01", 4_150),
    ("FILTER-100", 795),
    ("BEANS-ETH", 1_650),
    ("BEANS-COL", 1_480),
    ("TEA-SENCHA", 1_120),
    ("TEA-ASSAM", 980),
    ("TRAY-OAK", 5_600),
];

/// 2026-11-02 08:00:00 UTC, in milliseconds.
const OPENING: u64 = 1_793_606_400_000;

struct Event {
    at: u64,
    line: String,
}

struct Shop {
    random: Rng,
    events: Vec<Event>,
}

impl Shop {
    fn publish(&mut self, at: u64, topic: &str, message_type: &str, chain: &str, payload: &Value) {
        let mut random = [0; 10];
        self.random.fill(&mut random);
        let line = json!({
            "id": Builder::from_unix_timestamp_millis(at, &random).into_uuid().to_string(),
            "topic": topic,
            "type": message_type,
            "correlationId": chain,
            "payload": payload,
        });
        self.events.push(Event { at, line: line.to_string() });
    }

    fn customer(&mut self, number: u64) {
        let at = OPENING + self.random.u64(..86_400_000);
        let (region, _) = REGIONS[self.random.usize(..REGIONS.len())];
        let id = format!("C-{}", 10_000 + number);
        let payload = json!({"customerId": id, "newsletter": self.random.bool()});
        self.publish(at, &format!("customer.created.{region}"), "CustomerCreated", &id, &payload);
    }

    fn restock(&mut self, day: u64) {
        let at = OPENING + day * 86_400_000;
        for (sku, _) in PRODUCTS {
            let (region, _) = REGIONS[self.random.usize(..REGIONS.len())];
            let payload = json!({"sku": sku, "delivered": 50 * self.random.u64(1..=20)});
            let topic = format!("product.restocked.{region}");
            self.publish(at, &topic, "ProductRestocked", &format!("restock-{day}"), &payload);
        }
    }

    /// An order from its creation to its shipment or cancellation.
    fn order(&mut self, number: u64) {
        let order = format!("O-{}", 100_000 + number);
        let (region, currency) = REGIONS[self.random.usize(..REGIONS.len())];
        let (sku, price) = PRODUCTS[self.random.usize(..PRODUCTS.len())];
        let customer = format!("C-{}", 10_000 + self.random.u64(..400));
        let mut quantity = self.random.i64(1..=6);
        let mut at = OPENING + self.random.u64(..5 * 86_400_000);
        let mut version = 1;

        let mut change = |shop: &mut Self, at: u64, action: &str, delta: i64, quantity: i64| {
            let payload = json!({
                "orderId": order,
                "customerId": customer,
                "sku": sku,
                "quantityChange": delta,
                "amountCents": price * quantity.unsigned_abs(),
                "currency": currency,
                "version": version,
            });
            version += 1;
            let message_type = format!("Order{}{}", action[..1].to_uppercase(), &action[1..]);
            shop.publish(at, &format!("order.{action}.{region}"), &message_type, &order, &payload);
        };

        change(self, at, "created", quantity, quantity);
        for _ in 0..self.random.usize(..3) {
            at += self.random.u64(30_000..1_800_000);
            let new = self.random.i64(1..=6);
            change(self, at, "amended", new - quantity, new);
            quantity = new;
        }
        at += self.random.u64(30_000..3_600_000);
        if self.random.u64(..100) < 8 {
            return change(self, at, "cancelled", -quantity, quantity);
        }
        let payment = json!({
            "paymentId": format!("P-{}", 500_000 + number),
            "orderId": order,
            "amountCents": price * quantity.unsigned_abs(),
            "currency": currency,
        });
        self.publish(at, &format!("payment.created.{region}"), "PaymentCreated", &order, &payment);
        at += self.random.u64(500..20_000);
        let topic = format!("payment.captured.{region}");
        self.publish(at, &topic, "PaymentCaptured", &order, &payment);
        change(self, at + 40, "paid", 0, quantity);
        at += self.random.u64(3_600_000..86_400_000);
        let shipment = json!({"shipmentId": format!("S-{}", 700_000 + number), "orderId": order});
        let topic = format!("shipment.created.{region}");
        self.publish(at, &topic, "ShipmentCreated", &order, &shipment);
        change(self, at + 60_000, "shipped", 0, quantity);
    }
}

/// Lines that are no events, and events whose payload is of the wrong shape.
fn spoil(random: &mut Rng, lines: &mut Vec<String>) {
    let no_events = [
        "{\"id\":\"0199-cut-off\",\"topic\":\"order.created.us-west\",\"type\":\"Ord".to_owned(),
        "order.created.eu-west O-100017 2 pieces".to_owned(),
        json!({"id": "no-topic", "type": "OrderCreated", "payload": {}}).to_string(),
        json!({"id": "wild", "topic": "order.*.eu-west", "type": "OrderCreated", "payload": {}})
            .to_string(),
        json!({"id": "", "topic": "order.paid.us-east", "type": "OrderPaid", "payload": {}})
            .to_string(),
    ];
    let wrong_shape = [
        json!({"orderId": "O-100023", "sku": "MUG-BLUE", "quantityChange": "a few", "version": 1}),
        json!("O-100024 MUG-GREEN 2"),
        json!({"orderId": 100_025, "sku": "SCALE-01", "quantityChange": 1, "version": 1}),
    ];
    let wrong_shape = wrong_shape.into_iter().enumerate().map(|(n, payload)| {
        json!({
            "id": format!("wrong-shape-{n}"),
            "topic": "order.created.us-west",
            "type": "OrderCreated",
            "correlationId": format!("wrong-{n}"),
            "payload": payload,
        })
        .to_string()
    });
    for line in no_events.into_iter().chain(wrong_shape) {
        lines.insert(random.usize(..lines.len()), line);
    }
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    let mut shop = Shop { random: Rng::with_seed(options.seed), events: Vec::new() };
    (0..400).for_each(|number| shop.customer(number));
    (0..5).for_each(|day| shop.restock(day));
    (0..options.orders).for_each(|number| shop.order(number));

    let Shop { mut random, mut events } = shop;
    events.sort_by_key(|event| event.at);
    let mut lines: Vec<String> = events.into_iter().map(|event| event.line).collect();
    // A fiftieth comes early or late by up to forty lines.
    for _ in 0..lines.len() / 50 {
        let from = random.usize(..lines.len());
        let to = (from + random.usize(..40)).min(lines.len() - 1);
        lines.swap(from, to);
    }
    // One in thirty is published a second time, by a publisher that never saw its confirmation.
    for _ in 0..lines.len() / 30 {
        let from = random.usize(..lines.len());
        let to = (from + 1 + random.usize(..300)).min(lines.len());
        let line = lines[from].clone();
        lines.insert(to, line);
    }
    spoil(&mut random, &mut lines);

    let mut out = BufWriter::new(io::stdout().lock());
    for line in lines {
        writeln!(out, "{line}")?;
    }
    out.flush()
}
