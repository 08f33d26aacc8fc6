//! The URL of a broker.

/// Stands where the password is, and nobody else has it.
const SECRET: &str = "Zq7-Xv9-Kw3-Jy5";

/// An error repeats nothing of a URL, which may have a password anywhere, and what is shown of one has no password.
pub(super) fn read(input: &[u8]) {
    let Ok(url) = std::str::from_utf8(input) else { return };
    let _ = mmate_amqp::fuzzing::address(url);
    let Some((scheme, rest)) = url.split_once("://") else { return };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let Some((user, others)) = authority.rsplit_once('@').and_then(|(credentials, _)| {
        Some((credentials.split_once(':')?.0, &rest[credentials.len()..]))
    }) else {
        return;
    };
    let shown = mmate_amqp::fuzzing::address(&format!("{scheme}://{user}:{SECRET}{others}"));
    if !others.contains(['%', 'Z']) {
        assert!(!shown.contains(SECRET), "{shown:?} of {url:?} tells the password");
    }
}
