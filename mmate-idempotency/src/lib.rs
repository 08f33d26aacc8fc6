//! mmate-idempotency
