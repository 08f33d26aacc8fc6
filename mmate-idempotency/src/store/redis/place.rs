//! Where Redis is, from what its user gives.

use redis::cluster::ClusterClientBuilder;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    Client, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError, RedisResult,
};

use super::failure::failed;
use super::link::{Link, Target};
#[cfg(feature = "redis-tls")]
use super::tls;
use crate::store::StoreError;

/// What TLS is spoken with; without the feature `redis-tls`, nothing that could be.
#[cfg(feature = "redis-tls")]
pub(super) type Tls = tls::RedisTls;
#[cfg(not(feature = "redis-tls"))]
#[derive(Default)]
pub(super) struct Tls {}

const READING: &str = "use the address of Redis";

pub(super) fn node(url: &str, tls: &Tls) -> Result<Link, StoreError> {
    let info = parse(url, tls).map_err(failed(READING))?;
    let described = info.addr().to_string();
    let client = Client::open(info).map_err(failed(READING))?;
    Ok(Link::new(Target::Node(Box::new(client)), described))
}

pub(super) fn sentinel<U: AsRef<str>>(
    master_name: &str,
    urls: impl IntoIterator<Item = U>,
    tls: &Tls,
) -> Result<Link, StoreError> {
    let infos = all(urls, tls).map_err(failed(READING))?;
    let described = format!("{master_name} by {}", list(&infos));
    let client = |with_password: bool| {
        let addresses = infos.iter().map(|info| info.addr().clone());
        let settings = infos[0].redis_settings();
        let master = SentinelServerType::Master;
        let mut builder = SentinelClientBuilder::new(addresses, master_name, master)?
            .set_client_to_redis_db(settings.db())
            .set_client_to_redis_protocol(settings.protocol());
        #[cfg(feature = "redis-tls")]
        if is_secure(&infos[0]) {
            builder = builder
                .set_client_to_redis_tls_mode(redis::TlsMode::Secure)
                .set_client_to_redis_certificates(tls.certificates());
        }
        if let Some(user) = settings.username() {
            builder = builder.set_client_to_redis_username(user);
            if with_password {
                builder = builder.set_client_to_sentinel_username(user);
            }
        }
        if let Some(password) = settings.password() {
            builder = builder.set_client_to_redis_password(password);
            if with_password {
                builder = builder.set_client_to_sentinel_password(password);
            }
        }
        builder.build()
    };
    let has_password = infos[0].redis_settings().password().is_some();
    let clients = [false, true].into_iter().filter(|with| !with || has_password).map(client);
    let clients: RedisResult<Vec<_>> = clients.collect();
    Ok(Link::new(Target::Sentinel(clients.map_err(failed(READING))?), described))
}

pub(super) fn cluster<U: AsRef<str>>(
    urls: impl IntoIterator<Item = U>,
    tls: &Tls,
) -> Result<Link, StoreError> {
    let infos = all(urls, tls).map_err(failed(READING))?;
    let described = format!("the cluster of {}", list(&infos));
    #[cfg(feature = "redis-tls")]
    let is_secure = is_secure(&infos[0]);
    // A failover takes seconds; who called asks again after a pause, and loses no place meanwhile.
    let builder = ClusterClientBuilder::new(infos).retries(3);
    // The nodes that the first ones name are spoken with in the same way.
    #[cfg(feature = "redis-tls")]
    let builder = if is_secure { builder.certs(tls.certificates()) } else { builder };
    let client = builder.build().map_err(failed(READING))?;
    Ok(Link::new(Target::Cluster(Box::new(client)), described))
}

fn all<U: AsRef<str>>(
    urls: impl IntoIterator<Item = U>,
    tls: &Tls,
) -> RedisResult<Vec<ConnectionInfo>> {
    let infos: Vec<_> =
        urls.into_iter().map(|url| parse(url.as_ref(), tls)).collect::<Result<_, _>>()?;
    if infos.is_empty() {
        return Err(refused("there is no address"));
    }
    if infos.iter().any(|info| is_secure(info) != is_secure(&infos[0])) {
        return Err(refused("some addresses are with TLS (rediss://) and some without"));
    }
    Ok(infos)
}

fn is_secure(info: &ConnectionInfo) -> bool {
    matches!(info.addr(), ConnectionAddr::TcpTls { .. })
}

#[cfg_attr(not(feature = "redis-tls"), expect(unused_variables, reason = "there is no TLS"))]
fn parse(url: &str, tls: &Tls) -> RedisResult<ConnectionInfo> {
    let info = url.into_connection_info()?;
    match info.addr() {
        ConnectionAddr::TcpTls { insecure: true, .. } => {
            Err(refused("certificates are always verified, so #insecure cannot be"))
        }
        #[cfg(feature = "redis-tls")]
        ConnectionAddr::TcpTls { .. } => tls.secure(info),
        #[cfg(not(feature = "redis-tls"))]
        ConnectionAddr::TcpTls { .. } => {
            Err(refused("rediss:// is TLS, which needs the feature redis-tls of mmate-idempotency"))
        }
        #[cfg(feature = "redis-tls")]
        _ if !tls.is_default() => {
            Err(refused("there are certificates, but no TLS: say rediss:// instead of redis://"))
        }
        _ => Ok(info),
    }
}

fn refused(why: &'static str) -> RedisError {
    (ErrorKind::InvalidClientConfig, why).into()
}

fn list(infos: &[ConnectionInfo]) -> String {
    let addresses: Vec<_> = infos.iter().map(|info| info.addr().to_string()).collect();
    addresses.join(", ")
}
