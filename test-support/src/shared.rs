use std::env;

/// The address of the RabbitMQ that the tests of this run share, from `MMATE_TEST_AMQP_URL`.
///
/// # Panics
/// If the variable is not set: a test is never skipped silently.
#[must_use]
pub fn amqp_url() -> String {
    required("RabbitMQ", "MMATE_TEST_AMQP_URL")
}

/// The address of the Redis that the tests of this run share, from `MMATE_TEST_REDIS_URL`.
///
/// # Panics
/// If the variable is not set: a test is never skipped silently.
#[must_use]
pub fn redis_url() -> String {
    required("Redis", "MMATE_TEST_REDIS_URL")
}

/// The address of the PostgreSQL that the tests of this run share, from `MMATE_TEST_POSTGRES_URL`.
///
/// # Panics
/// If the variable is not set: a test is never skipped silently.
#[must_use]
pub fn postgres_url() -> String {
    required("PostgreSQL", "MMATE_TEST_POSTGRES_URL")
}

/// The address of the MariaDB that the tests of this run share, from `MMATE_TEST_MARIADB_URL`.
///
/// # Panics
/// If the variable is not set: a test is never skipped silently.
#[must_use]
pub fn mariadb_url() -> String {
    required("MariaDB", "MMATE_TEST_MARIADB_URL")
}

fn required(server: &str, variable: &str) -> String {
    or_panic(server, variable, env::var(variable).ok())
}

fn or_panic(server: &str, variable: &str, given: Option<String>) -> String {
    given.filter(|url| !url.is_empty()).unwrap_or_else(|| {
        panic!(
            "this test needs {server}, and {variable} does not say where it is: run `scripts/test`, or \
             `scripts/with-servers cargo test …` for some tests only, or set {variable} to the address of a server \
             that tests may write to"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_address_is_taken_as_it_is() {
        assert_eq!(or_panic("Redis", "WHERE", Some("redis://here/".to_owned())), "redis://here/");
    }

    #[test]
    #[should_panic(
        expected = "this test needs Redis, and WHERE does not say where it is: run `scripts/test`"
    )]
    fn a_test_without_its_server_fails_and_says_what_to_do() {
        let _ = or_panic("Redis", "WHERE", Some(String::new()));
    }
}
