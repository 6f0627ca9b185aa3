//! A wire to etcd that can be cut, and that can lose the answers alone.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::watch,
};
use tokio_util::task::AbortOnDropHandle;

/// What passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passes {
    Everything,
    /// Requests arrive, answers are lost.
    Requests,
    /// Connections are closed, and new ones too.
    Nothing,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Proxy {
    address: SocketAddr,
    passes: watch::Sender<Passes>,
    /// Bytes of answers that were lost.
    lost: Arc<AtomicUsize>,
    /// Connections that were closed at once.
    refused: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl Proxy {
    pub(super) fn to(address: String, runtime: &Runtime) -> Self {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let own = listener.local_addr().expect("bound");
        let (passes, seen) = watch::channel(Passes::Everything);
        let lost = Arc::new(AtomicUsize::new(0));
        let refused = Arc::new(AtomicUsize::new(0));
        let (counts, refuses) = (Arc::clone(&lost), Arc::clone(&refused));
        let task = runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *seen.borrow() == Passes::Nothing {
                    refuses.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                tokio::spawn(carry(client, address.clone(), seen.clone(), Arc::clone(&counts)));
            }
        });
        Self {
            address: own,
            passes,
            lost,
            refused,
            _task: AbortOnDropHandle::new(task),
        }
    }

    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on.
    pub(super) fn let_pass(&self, passes: Passes) {
        self.passes.send_replace(passes);
    }

    /// How many connections were closed at once.
    pub(super) fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether an answer was lost.
    pub(super) fn has_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed) > 0
    }
}

/// One connection, until an end of it closes or nothing may pass.
async fn carry(mut client: TcpStream, address: String, passes: watch::Receiver<Passes>, lost: Arc<AtomicUsize>) {
    let Ok(mut server) = TcpStream::connect(address).await else {
        return;
    };
    let mut cut = passes.clone();
    let (mut to, mut from) = (vec![0; 65_536], vec![0; 65_536]);
    loop {
        tokio::select! {
            // Also when the proxy is gone.
            () = nothing_passes(&mut cut) => return,
            read = client.read(&mut to) => match read {
                Ok(count) if count > 0 && server.write_all(&to[..count]).await.is_ok() => {}
                _ => return,
            },
            read = server.read(&mut from) => match read {
                Ok(count) if count > 0 => {
                    if *passes.borrow() == Passes::Requests {
                        lost.fetch_add(count, Ordering::Relaxed);
                    } else if client.write_all(&from[..count]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            },
        }
    }
}

async fn nothing_passes(passes: &mut watch::Receiver<Passes>) {
    let _ = passes.wait_for(|passes| *passes == Passes::Nothing).await;
}
