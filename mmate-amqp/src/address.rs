//! Where the broker is, and who we are to it.

use std::fmt;

use lapin::uri::{AMQPScheme, AMQPUri};

/// The address of a broker, or of several nodes of one, with credentials. Neither `Debug` nor
/// `Display` shows them.
#[derive(Clone)]
pub(crate) struct Address {
    /// That of the first node. Credentials, virtual host and query are those of all.
    uri: AMQPUri,
    nodes: Vec<Node>,
}

/// One machine to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    /// Reads an `amqp://` or `amqps://` URL. The error says what is wrong with it, and repeats none
    /// of it: it may hold a password anywhere.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err("the URL does not start with amqp:// or amqps://".to_owned());
        };
        match scheme {
            "amqp" => {}
            "amqps" if cfg!(feature = "tls") => {}
            // Without a TLS backend lapin (tcp-stream 0.34) would speak to it in clear text.
            "amqps" => {
                return Err(
                    "this build has no TLS, which amqps:// needs: enable the feature `tls` \
                            of mmate-amqp"
                        .to_owned(),
                );
            }
            _ => return Err("the URL's scheme is neither amqp nor amqps".to_owned()),
        }
        if rest.contains(",amqp://") || rest.contains(",amqps://") {
            return Err(
                "these are several URLs; the nodes of a cluster are written in one, as in \
                        amqp://user:password@one,two,three/virtual-host"
                    .to_owned(),
            );
        }
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (credentials, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
        let mut uris = Vec::new();
        for host in hosts.split(',').map(str::trim) {
            if host.is_empty() && hosts.contains(',') {
                return Err("the URL has a comma too many among its hosts".to_owned());
            }
            uris.push(parse_one(&format!("{scheme}://{credentials}{host}{tail}"), host)?);
        }
        let node =
            |uri: &AMQPUri| Node { host: uri.authority.host.clone(), port: uri.authority.port };
        let nodes = uris.iter().map(node).collect();
        // Splitting gives at least one.
        Ok(Self { uri: uris.swap_remove(0), nodes })
    }

    /// The URL of the first node in lapin's words, which show the password to anybody.
    pub(crate) fn uri(&self) -> &AMQPUri {
        &self.uri
    }

    /// Where to connect to; any of them will do.
    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Whether it asks for TLS.
    pub(crate) fn is_secure(&self) -> bool {
        self.uri.scheme == AMQPScheme::AMQPS
    }

    /// Whether the virtual host is the empty one, which is what `amqp://host/` means.
    pub(crate) fn has_empty_vhost(&self) -> bool {
        self.uri.vhost.is_empty()
    }
}

fn parse_one(url: &str, host: &str) -> Result<AMQPUri, String> {
    let mut uri: AMQPUri = url.parse().map_err(|error: String| match error {
        repeats_it if repeats_it.contains(url) => "the URL has an unusable form".to_owned(),
        other => format!("the URL has an unusable form: {other}"),
    })?;
    // amq-protocol-uri 10.6 takes an IPv6 address for no host at all, which is localhost.
    if let Some((address, _)) = host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        uri.authority.host = address.to_owned();
    }
    if uri.authority.host.is_empty() {
        return Err("the URL names no host".to_owned());
    }
    if uri.vhost.len() > 255 {
        return Err("the URL's virtual host is longer than 255 bytes".to_owned());
    }
    Ok(uri)
}

/// The URL without credentials and query.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_secure() { "amqps://" } else { "amqp://" })?;
        for (place, node) in self.nodes.iter().enumerate() {
            write!(f, "{}{node}", if place == 0 { "" } else { "," })?;
        }
        match self.uri.vhost.as_str() {
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

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{open}{}{close}:{}", self.host, self.port)
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
    fn several_nodes_share_credentials_virtual_host_and_query() {
        let url = "amqp://al,ice:s3,cret@one, two:5673,[2001:db8::1]/prod?heartbeat=7";
        let address = Address::parse(url).unwrap();
        assert_eq!(address.to_string(), "amqp://one:5672,two:5673,[2001:db8::1]:5672/prod");
        assert_eq!(address.uri().authority.userinfo.username, "al,ice");
        assert_eq!(address.uri().authority.userinfo.password, "s3,cret");
        assert_eq!(address.uri().query.heartbeat, Some(7));
        let node = |host: &str, port| Node { host: host.to_owned(), port };
        assert_eq!(
            address.nodes(),
            [node("one", 5672), node("two", 5673), node("2001:db8::1", 5672)]
        );
    }

    #[cfg(feature = "tls")]
    #[test]
    fn an_amqps_url_has_a_port_of_its_own() {
        assert_eq!(shown("amqps://alice:s3cret@one,two:1"), "amqps://one:5671,two:1");
        assert!(Address::parse("amqps://one").unwrap().is_secure());
        assert!(!Address::parse("amqp://one").unwrap().is_secure());
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn amqps_is_refused_where_there_is_no_tls() {
        let error = Address::parse("amqps://alice:s3cret@broker").unwrap_err();
        assert!(error.contains("enable the feature `tls`"), "{error}");
    }

    #[test]
    fn what_is_wrong_with_a_url_is_told_without_repeating_it() {
        for (url, complaint) in [
            ("", "does not start with amqp://"),
            ("alice:s3cret@broker:5672", "does not start with amqp://"),
            ("http://alice:s3cret@broker", "scheme is neither"),
            ("amqp://alice:s3cret@broker:99999", "invalid port"),
            ("amqp://alice:s3cret@broker,other:99999", "invalid port"),
            ("amqp://alice:s3cret@broker,,other", "a comma too many"),
            ("amqp://alice:s3cret@broker,", "a comma too many"),
            ("amqp://alice:s3cret@one,amqp://alice:s3cret@two", "in one, as in amqp://user"),
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
