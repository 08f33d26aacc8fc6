//! Where Redis is, from what its user gives.

use redis::cluster::ClusterClientBuilder;
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{Client, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisResult};

use super::failure::failed;
use super::link::{Link, Target};
use crate::store::StoreError;

const READING: &str = "use the address of Redis";

pub(super) fn node(url: &str) -> Result<Link, StoreError> {
    let info = parse(url).map_err(failed(READING))?;
    let described = info.addr().to_string();
    let client = Client::open(info).map_err(failed(READING))?;
    Ok(Link::new(Target::Node(client), described))
}

pub(super) fn sentinel<U: AsRef<str>>(
    master_name: &str,
    urls: impl IntoIterator<Item = U>,
) -> Result<Link, StoreError> {
    let infos = all(urls).map_err(failed(READING))?;
    let described = format!("{master_name} by {}", list(&infos));
    let client = |with_password: bool| {
        let addresses = infos.iter().map(|info| info.addr().clone());
        let settings = infos[0].redis_settings();
        let master = SentinelServerType::Master;
        let mut builder = SentinelClientBuilder::new(addresses, master_name, master)?
            .set_client_to_redis_db(settings.db())
            .set_client_to_redis_protocol(settings.protocol());
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
) -> Result<Link, StoreError> {
    let infos = all(urls).map_err(failed(READING))?;
    let described = format!("the cluster of {}", list(&infos));
    // A failover takes seconds; who called asks again after a pause, and loses no place meanwhile.
    let client = ClusterClientBuilder::new(infos).retries(3).build().map_err(failed(READING))?;
    Ok(Link::new(Target::Cluster(Box::new(client)), described))
}

fn all<U: AsRef<str>>(urls: impl IntoIterator<Item = U>) -> RedisResult<Vec<ConnectionInfo>> {
    let infos: Vec<_> =
        urls.into_iter().map(|url| parse(url.as_ref())).collect::<Result<_, _>>()?;
    if infos.is_empty() {
        return Err((ErrorKind::InvalidClientConfig, "there is no address").into());
    }
    Ok(infos)
}

fn parse(url: &str) -> RedisResult<ConnectionInfo> {
    let info = url.into_connection_info()?;
    if !info.addr().is_supported() {
        let text = "connections with TLS are not supported";
        return Err((ErrorKind::InvalidClientConfig, text).into());
    }
    Ok(info)
}

fn list(infos: &[ConnectionInfo]) -> String {
    let addresses: Vec<_> = infos.iter().map(|info| info.addr().to_string()).collect();
    addresses.join(", ")
}
