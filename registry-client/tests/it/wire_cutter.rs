//! The network between a client and a registry, with a switch: open, frozen (half-open: accepts and carries nothing) or cut
//! (resets what is open and refuses what is new).

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Open,
    Frozen,
    Cut,
}

/// A proxy before one registry.
pub(crate) struct WireCutter {
    pub(crate) address: SocketAddr,
    line: watch::Sender<Line>,
    proxy: JoinHandle<()>,
}

impl Drop for WireCutter {
    fn drop(&mut self) {
        self.proxy.abort();
    }
}

impl WireCutter {
    pub(crate) async fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let (line, seen) = watch::channel(Line::Open);
        let proxy = tokio::spawn(async move {
            let mut carriers = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.expect("accepts");
                if *seen.borrow() != Line::Cut {
                    carriers.spawn(carry(client, target, seen.clone()));
                }
            }
        });
        Self { address, line, proxy }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Breaks all connections, and every new one at once.
    pub(crate) fn cut(&self) {
        self.line.send_replace(Line::Cut);
    }

    /// Carries nothing more, but keeps all connections and accepts new ones, as a stopped process or a dead router does.
    pub(crate) fn freeze(&self) {
        self.line.send_replace(Line::Frozen);
    }

    pub(crate) fn mend(&self) {
        self.line.send_replace(Line::Open);
    }
}

/// One connection, until either side ends it or the line is cut.
async fn carry(client: TcpStream, target: SocketAddr, mut line: watch::Receiver<Line>) {
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    for socket in [&client, &server] {
        socket.set_nodelay(true).expect("a live socket");
    }
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let there = copy(&mut from_client, &mut to_server, line.clone());
    let back = copy(&mut from_server, &mut to_client, line.clone());
    tokio::select! {
        _ = there => {}
        _ = back => {}
        _ = line.wait_for(|line| *line == Line::Cut) => {}
    }
}

async fn copy(
    from: &mut tcp::OwnedReadHalf,
    to: &mut tcp::OwnedWriteHalf,
    mut line: watch::Receiver<Line>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        // What arrives on a frozen line waits; the test's end drops it.
        if line.wait_for(|line| *line != Line::Frozen).await.is_err() {
            return Ok(());
        }
        to.write_all(&buffer[..n]).await?;
    }
}
