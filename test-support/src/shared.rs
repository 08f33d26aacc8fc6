use std::env;

/// The address of the RabbitMQ that the tests of this run share, from `MMATE_TEST_AMQP_URL`.
///
/// # Panics
/// If the variable is not set: a test is never skipped silently.
#[must_use]
pub fn amqp_url() -> String {
    given("RabbitMQ", "MMATE_TEST_AMQP_URL")
}

/// The address of the Redis that the tests of this run share, from `MMATE_TEST_REDIS_URL`.
///
/// # Panics
/// If the variable is not set: a test is never skipped silently.
#[must_use]
pub fn redis_url() -> String {
    given("Redis", "MMATE_TEST_REDIS_URL")
}

/// The address of the PostgreSQL that the tests of this run share, from `MMATE_TEST_POSTGRES_URL`.
///
/// # Panics
/// If the variable is not set: a test is never skipped silently.
#[must_use]
pub fn postgres_url() -> String {
    given("PostgreSQL", "MMATE_TEST_POSTGRES_URL")
}

/// The address of the MariaDB that the tests of this run share, from `MMATE_TEST_MARIADB_URL`.
///
/// # Panics
/// If the variable is not set: a test is never skipped silently.
#[must_use]
pub fn mariadb_url() -> String {
    given("MariaDB", "MMATE_TEST_MARIADB_URL")
}

fn given(server: &str, variable: &str) -> String {
    env::var(variable).ok().filter(|url| !url.is_empty()).unwrap_or_else(|| {
        panic!(
            "this test needs {server}, and {variable} does not say where it is: run `scripts/test`, or \
             `scripts/with-servers cargo test …` for some tests only, or set {variable} to the address of a server \
             that tests may write to"
        )
    })
}
