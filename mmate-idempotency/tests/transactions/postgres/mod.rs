//! PostgreSQL under faults.

mod contention;
mod cuts;
mod load;
mod outages;
mod proxy;
mod tracked;
