//! A proxy between a pool and its database, which cuts connections at a `COMMIT`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sqlx::mysql::MySqlConnectOptions;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Where a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The database never sees the `COMMIT`.
    Before,
    /// It has committed and said so; nobody hears it.
    After,
}

/// Passes on what comes, and cuts so many commits as it is told, the kinds by turns.
#[derive(Clone)]
pub(crate) struct Proxy {
    port: u16,
    target: u16,
    left: Arc<AtomicUsize>,
    /// How many there were.
    cuts: Arc<AtomicUsize>,
}

impl Proxy {
    pub(crate) async fn in_front_of(options: &MySqlConnectOptions) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            target: options.get_port(),
            left: Arc::default(),
            cuts: Arc::default(),
        };
        let accepts = proxy.clone();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let proxy = accepts.clone();
                // Its errors are what the tests are about.
                tokio::spawn(async move { proxy.pass(client).await.unwrap_or_default() });
            }
        });
        proxy
    }

    /// The way to the database through this proxy.
    pub(crate) fn options(&self, options: &MySqlConnectOptions) -> MySqlConnectOptions {
        options.clone().host("127.0.0.1").port(self.port)
    }

    /// Cuts so many commits more.
    pub(crate) fn cut_further(&self, cuts: usize) {
        self.left.fetch_add(cuts, Ordering::SeqCst);
    }

    /// How many cuts are still to come.
    pub(crate) fn left(&self) -> usize {
        self.left.load(Ordering::SeqCst)
    }

    /// The next cut, if there is one left.
    fn cut(&self) -> Option<Cut> {
        let less = |left: usize| left.checked_sub(1);
        self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).ok()?;
        Some(if self.cuts.fetch_add(1, Ordering::SeqCst) % 2 == 0 {
            Cut::Before
        } else {
            Cut::After
        })
    }

    async fn pass(&self, mut client: TcpStream) -> std::io::Result<()> {
        let mut server = TcpStream::connect(("127.0.0.1", self.target)).await?;
        let (mut asked, mut answered) = (vec![0; 65536], vec![0; 65536]);
        loop {
            tokio::select! {
                count = client.read(&mut asked) => {
                    let asked = &asked[..count?];
                    if asked.is_empty() {
                        return Ok(());
                    }
                    let commits = asked.windows(6).any(|word| word == b"COMMIT");
                    match if commits { self.cut() } else { None } {
                        Some(Cut::Before) => return Ok(()),
                        Some(Cut::After) => {
                            server.write_all(asked).await?;
                            return read_answers(&mut server).await;
                        }
                        None => server.write_all(asked).await?,
                    }
                }
                count = server.read(&mut answered) => {
                    let answered = &answered[..count?];
                    if answered.is_empty() {
                        return Ok(());
                    }
                    client.write_all(answered).await?;
                }
            }
        }
    }
}

/// Reads answers to the last one: the one after which the server says that no more are to come.
async fn read_answers(server: &mut TcpStream) -> std::io::Result<()> {
    const MORE_TO_COME: u8 = 8;
    loop {
        let mut header = [0; 4];
        server.read_exact(&mut header).await?;
        let length = u32::from_le_bytes([header[0], header[1], header[2], 0]);
        let mut packet = vec![0; usize::try_from(length).unwrap()];
        server.read_exact(&mut packet).await?;
        // That it is done: two numbers of a byte each, and then the status.
        if packet[0] != 0 || packet[3] & MORE_TO_COME == 0 {
            return Ok(());
        }
    }
}
