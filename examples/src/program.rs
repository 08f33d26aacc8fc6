//! What every one of the services does at its begin and its end.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mmate_core::error_chain;
use serde_json::json;
use tokio::net::TcpListener;

/// Any error, on its way to the user.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A free port of this machine, for what runs within a demonstration.
pub const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The exit code of a program: 0 if all is as it should be, 1 if not, or 2 after a failure, which is told in one line.
#[must_use]
pub fn exit_code(program: &str, is_well: Result<bool, Failure>) -> ExitCode {
    match is_well {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("{program}: {}", error_chain(&*failure));
            ExitCode::from(2)
        }
    }
}

/// Listens on that address; with port 0 on a free one.
///
/// # Errors
/// When it cannot, with the address in the message.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(address).await;
    Ok(listener.map_err(|error| format!("failed to listen on {address}: {error}"))?)
}

/// An answer over HTTP that says why not.
#[must_use]
pub fn refusal(status: StatusCode, reason: &str) -> Response {
    (status, Json(json!({"error": reason}))).into_response()
}
