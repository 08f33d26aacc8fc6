//! Who may connect.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use socketioxide::SocketIo;
use socketioxide::extract::{Extension, SocketRef, TryData};
use socketioxide::handler::ConnectHandler;

use crate::sign_in::{Name, Signer};

/// What a client says when it connects.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Auth<S> {
    token: String,
    #[serde(default)]
    after: S,
}

/// Who is connected, and what that one has seen.
#[derive(Debug, Clone)]
struct Guest<S> {
    name: Name,
    after: S,
}

/// Calls `enter` with the name of each client that connects, and with what it says that it has seen. Whoever has no token of
/// this signer is refused, and told why.
pub fn welcome<S, F, E>(io: &SocketIo, signer: Signer, enter: F)
where
    S: DeserializeOwned + Default + Clone + Send + Sync + 'static,
    F: Fn(SocketRef, Name, S) -> E + Clone + Send + Sync + 'static,
    E: Future<Output = ()> + Send + 'static,
{
    let check = async move |socket: SocketRef, TryData(auth): TryData<Auth<S>>| {
        let Auth { token, after } = auth.map_err(|error| {
            format!("auth is {{token, after}}, with a token of /sign-in: {error}")
        })?;
        let name = signer.verify(&token)?;
        socket.extensions.insert(Guest { name, after });
        Ok::<(), String>(())
    };
    let connect = async move |socket: SocketRef, Extension(guest): Extension<Guest<S>>| {
        enter(socket, guest.name, guest.after).await;
    };
    io.ns("/", connect.with(check));
}
