//! Whether each order was charged once, and has one payment and one receipt.

use std::collections::HashSet;
use std::fmt;

use crate::books::Summary;
use crate::order::Charge;

/// How many there are, and of how many different orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) all: u64,
    pub(crate) orders: u64,
}

#[derive(Debug)]
pub(crate) struct Report {
    orders: u64,
    rows: [(&'static str, Count); 3],
}

impl Report {
    pub(crate) fn of(charges: &[Charge], summary: &Summary, orders: u32) -> Self {
        let charged: HashSet<_> = charges.iter().map(|charge| &charge.order_id).collect();
        let charges = Count { all: charges.len() as u64, orders: charged.len() as u64 };
        let Summary { payments, receipts } = *summary;
        let rows = [("charges", charges), ("payments", payments), ("receipts", receipts)];
        Self { orders: orders.into(), rows }
    }

    pub(crate) fn is_clean(&self) -> bool {
        let each_once = Count { all: self.orders, orders: self.orders };
        self.rows.iter().all(|(_, count)| *count == each_once)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<10} {:>7} {:>7}", "", "orders", "in all")?;
        for (name, Count { all, orders }) in self.rows {
            writeln!(f, "{name:<10} {orders:>7} {all:>7}")?;
        }
        Ok(())
    }
}
