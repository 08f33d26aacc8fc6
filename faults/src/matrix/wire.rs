//! The way to a database, with failpoints at a transaction's claim and commit.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::ReadHalf;
use tokio::net::{TcpListener, TcpStream};

use super::cell::{Boundary, Records};
use super::point::{Point, Strike};
use super::role::PREFIX;

/// Passes on what a pool and its database say to each other.
pub(crate) struct Wire {
    speaks: Speaks,
    server: String,
    point: Arc<Point>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Postgres,
    MySql,
}

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Claim,
    Commit,
    Rollback,
    Other,
}

impl Wire {
    /// Stands before the database of this URL, and returns the way there.
    pub(crate) async fn before(url: &str, records: Records, point: Arc<Point>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (_, rest) = url.rsplit_once('@').unwrap_or_else(|| url.split_once("://").unwrap());
        let (server, _) = rest.split_once('/').unwrap();
        let speaks = match records {
            Records::Postgres => Speaks::Postgres,
            _ => Speaks::MySql,
        };
        let wire = Arc::new(Self { speaks, server: server.to_owned(), point });
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let wire = Arc::clone(&wire);
                // Whatever ends a connection, both ends see it.
                tokio::spawn(async move { wire.pass(client).await.unwrap_or_default() });
            }
        });
        url.replacen(server, &address, 1)
    }

    async fn pass(&self, mut client: TcpStream) -> io::Result<()> {
        let mut server = TcpStream::connect(&self.server).await?;
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let (mut asked, mut answered) = (vec![0; 65536], vec![0; 65536]);
        let mut carries_claim = false;
        loop {
            let asked = tokio::select! {
                count = from_client.read(&mut asked) => some(&asked, count?)?,
                count = from_server.read(&mut answered) => {
                    to_client.write_all(some(&answered, count?)?).await?;
                    continue;
                }
            };
            let boundaries = match self.speaks.reads(asked) {
                Asked::Claim if !carries_claim => {
                    carries_claim = true;
                    Some([Boundary::ClaimSent, Boundary::ClaimApplied])
                }
                Asked::Commit if carries_claim => {
                    carries_claim = false;
                    Some([Boundary::EndSent, Boundary::EndApplied])
                }
                Asked::Rollback => {
                    carries_claim = false;
                    None
                }
                Asked::Claim | Asked::Commit | Asked::Other => None,
            };
            let Some([sent, applied]) = boundaries else {
                to_server.write_all(asked).await?;
                continue;
            };
            let id = id_in(asked);
            self.strike(sent, &id, &mut from_client).await?;
            to_server.write_all(asked).await?;
            let answer = self.speaks.answer(&mut from_server, sent).await?;
            self.strike(applied, &id, &mut from_client).await?;
            to_client.write_all(&answer).await?;
        }
    }

    /// An error closes the connection. Where no answer shall come, that waits until the client has gone.
    async fn strike(
        &self,
        boundary: Boundary,
        id: &str,
        client: &mut ReadHalf<'_>,
    ) -> io::Result<()> {
        match self.point.at(boundary, id) {
            None => Ok(()),
            Some(Strike::Error) => Err(io::ErrorKind::ConnectionAborted.into()),
            Some(Strike::Lost) => {
                let mut ignored = [0; 1024];
                while client.read(&mut ignored).await? > 0 {}
                Err(io::ErrorKind::ConnectionAborted.into())
            }
        }
    }
}

impl Speaks {
    fn reads(self, asked: &[u8]) -> Asked {
        let has = |text: &str| asked.windows(text.len()).any(|window| window == text.as_bytes());
        // MariaDB gets a commit's rollback point with it, and what is claimed as hexadecimal literals.
        let claims = match self {
            Self::Postgres => has(PREFIX),
            Self::MySql => has("INSERT INTO") && has("processed_messages"),
        };
        match () {
            () if has("COMMIT") => Asked::Commit,
            () if has("ROLLBACK") => Asked::Rollback,
            () if claims => Asked::Claim,
            () => Asked::Other,
        }
    }

    /// The whole of an answer: of a commit there may be several parts, the first of which says nothing of it.
    async fn answer(self, server: &mut ReadHalf<'_>, to: Boundary) -> io::Result<Vec<u8>> {
        let (mut answer, mut part) = (Vec::new(), vec![0; 65536]);
        loop {
            let count = server.read(&mut part).await?;
            answer.extend_from_slice(some(&part, count)?);
            let is_whole = match self {
                // "Ready for the next question", with one byte of state.
                Self::Postgres => answer.iter().rev().skip(1).take(5).eq([5, 0, 0, 0, b'Z'].iter()),
                Self::MySql => to != Boundary::EndSent || is_last_of_mysql(&answer),
            };
            if is_whole {
                return Ok(answer);
            }
        }
    }
}

/// Whether the last packet is there and says that no more are to come: that it is done with two numbers of a byte
/// each and then the status, or that it failed.
fn is_last_of_mysql(mut answer: &[u8]) -> bool {
    const MORE_TO_COME: u8 = 8;
    loop {
        let Some(([a, b, c, _], rest)) = answer.split_first_chunk::<4>() else { return false };
        let length = u32::from_le_bytes([*a, *b, *c, 0]) as usize;
        let Some((packet, rest)) = rest.split_at_checked(length) else { return false };
        match packet {
            [0, _, _, status, ..] if status & MORE_TO_COME != 0 => answer = rest,
            _ => return true,
        }
    }
}

fn some(buffer: &[u8], count: usize) -> io::Result<&[u8]> {
    match count {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => Ok(&buffer[..count]),
    }
}

/// The id that a claim is about, where it can be read.
fn id_in(asked: &[u8]) -> String {
    let at = asked.windows(PREFIX.len()).position(|window| window == PREFIX.as_bytes());
    let id = at.map(|at| {
        asked[at..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'-')
    });
    id.map(|id| id.map(|byte| char::from(*byte)).collect()).unwrap_or_default()
}
