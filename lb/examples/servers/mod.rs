//! Servers for the examples to call: gRPC's health service on free ports of this machine.

use std::net::SocketAddr;

use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

/// A server that runs until it is stopped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
}

pub(crate) async fn start(count: usize) -> std::io::Result<Vec<Running>> {
    let mut servers = Vec::new();
    for _ in 0..count {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let (_, health) = tonic_health::server::health_reporter();
        let serving = Server::builder()
            .add_service(health)
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async { drop(stopped.await) });
        servers.push(Running {
            address,
            stop,
            task: tokio::spawn(serving),
        });
    }
    Ok(servers)
}

impl Running {
    /// Ends it in order: calls under way finish.
    #[allow(dead_code, reason = "not every example stops one")]
    pub(crate) async fn stop(self) {
        drop(self.stop);
        // Its error, if any, is nothing that an example could do something about.
        let _ = self.task.await;
    }
}
