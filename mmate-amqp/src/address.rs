//! Where the broker is, and who we are to it.

use std::fmt;

use lapin::uri::{AMQPScheme, AMQPUri};

/// A broker's address with credentials. Neither `Debug` nor `Display` shows them.
#[derive(Clone)]
pub(crate) struct Address {
    uri: AMQPUri,
}

impl Address {
    /// Reads an `amqp://` URL. The error says what is wrong with it, and repeats none of it: it may
    /// hold a password anywhere.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err("the URL does not start with amqp://".to_owned());
        };
        match scheme {
            "amqp" => {}
            // Without a TLS backend lapin (tcp-stream 0.34) would speak to it in clear text.
            "amqps" => return Err("this build has no TLS, which amqps:// needs".to_owned()),
            _ => return Err("the URL's scheme is not amqp".to_owned()),
        }
        let mut uri: AMQPUri = url.parse().map_err(|error: String| match error {
            repeats_it if repeats_it.contains(rest) => "the URL has an unusable form".to_owned(),
            other => format!("the URL has an unusable form: {other}"),
        })?;
        // amq-protocol-uri 10.6 takes an IPv6 address for no host at all, which is localhost.
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        if let Some(address) = host.strip_prefix('[').and_then(|host| host.split_once(']')) {
            uri.authority.host = address.0.to_owned();
        }
        if uri.authority.host.is_empty() {
            return Err("the URL names no host".to_owned());
        }
        if uri.vhost.len() > 255 {
            return Err("the URL's virtual host is longer than 255 bytes".to_owned());
        }
        Ok(Self { uri })
    }

    /// The URL in lapin's words, which show the password to anybody.
    pub(crate) fn uri(&self) -> &AMQPUri {
        &self.uri
    }

    /// Whether the virtual host is the empty one, which is what `amqp://host/` means.
    pub(crate) fn has_empty_vhost(&self) -> bool {
        self.uri.vhost.is_empty()
    }
}

/// The URL without credentials and query.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AMQPUri { scheme, authority, vhost, .. } = &self.uri;
        let scheme = match scheme {
            AMQPScheme::AMQP => "amqp",
            AMQPScheme::AMQPS => "amqps",
        };
        let (open, close) = if authority.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{open}{}{close}:{}", authority.host, authority.port)?;
        match vhost.as_str() {
            "/" => Ok(()),
            other => write!(f, "/{}", other.replace('%', "%25").replace('/', "%2f")),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        Address::parse(url).unwrap().to_string()
    }

    #[test]
    fn an_address_is_shown_without_credentials_and_query() {
        let url = "amqp://alice:s3cret@broker.example:5673/prod%2feu?heartbeat=7";
        assert_eq!(shown(url), "amqp://broker.example:5673/prod%2feu");
        assert_eq!(shown("amqp://alice:s3cret@broker"), "amqp://broker:5672");
        assert!(!format!("{:?}", Address::parse(url).unwrap()).contains("s3cret"));
    }

    #[test]
    fn an_ipv6_address_is_not_taken_for_localhost() {
        let address = Address::parse("amqp://u:p@[2001:db8::1]:5673/%2f").unwrap();
        assert_eq!(address.uri().authority.host, "2001:db8::1");
        assert_eq!(address.to_string(), "amqp://[2001:db8::1]:5673");
    }

    #[test]
    fn what_is_wrong_with_a_url_is_told_without_repeating_it() {
        for (url, complaint) in [
            ("", "does not start with amqp://"),
            ("alice:s3cret@broker:5672", "does not start with amqp://"),
            ("http://alice:s3cret@broker", "scheme is not amqp"),
            ("amqps://alice:s3cret@broker", "no TLS"),
            ("amqp://alice:s3cret@broker:99999", "invalid port"),
            ("amqp://alice:s3cret@broker?heartbeat=s3cret", "unusable form"),
            ("amqp://alice:s3cret@", "unusable form"),
        ] {
            let error = Address::parse(url).unwrap_err();
            assert!(error.contains(complaint), "{url}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn a_slash_alone_is_the_empty_virtual_host() {
        assert!(Address::parse("amqp://broker/").unwrap().has_empty_vhost());
        assert!(!Address::parse("amqp://broker").unwrap().has_empty_vhost());
    }
}
