//! A connection of watches below any gRPC library, for clients that do not read: HTTP/2 with windows of one's choice, and two
//! ways to stall, not to read a stream (the client answers pings) and not to read the socket (it does nothing at all).

use std::{collections::VecDeque, time::Duration};

use bytes::{Buf as _, Bytes, BytesMut};
use h2::{RecvStream, client::SendRequest};
use http::Request;
use prost::Message as _;
use tokio::{net::TcpStream, sync::watch, task::JoinHandle};

use super::wire;
use crate::wait;

/// The window of a stream when nobody says otherwise (RFC 9113, 6.9.2).
pub const WINDOW: u32 = 65_535;
/// The largest window that there is.
pub const LARGEST_WINDOW: u32 = (1 << 31) - 1;

/// One connection.
#[derive(Debug)]
pub struct Frames {
    requests: SendRequest<Bytes>,
    reads: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// One watch on it, which receives only while somebody asks for the next message.
#[derive(Debug)]
pub struct Told {
    body: RecvStream,
    buffer: BytesMut,
    messages: VecDeque<wire::WatchResponse>,
}

impl Frames {
    /// Connects with this window for each stream and `connection` for all of them.
    ///
    /// # Panics
    /// When it cannot.
    pub async fn connect(address: &str, stream: u32, connection: u32) -> Self {
        let socket = TcpStream::connect(address).await.expect("it listens");
        socket.set_nodelay(true).expect("a socket");
        let (requests, mut h2) = h2::client::Builder::new()
            .initial_window_size(stream)
            .initial_connection_window_size(connection)
            .handshake(socket)
            .await
            .expect("speaks HTTP/2");
        let (reads, mut reading) = watch::channel(true);
        let task = tokio::spawn(async move {
            loop {
                let paused = !*reading.borrow_and_update();
                if paused {
                    if reading.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
                tokio::select! {
                    _ = &mut h2 => return,
                    changed = reading.changed() => if changed.is_err() { return },
                }
            }
        });
        Self { requests, reads, task }
    }

    /// Whether the socket is read at all.
    pub fn read_socket(&self, reads: bool) {
        self.reads.send_replace(reads);
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.task.is_finished()
    }

    /// Opens a watch.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn watch(&mut self, request: &wire::WatchRequest) -> Told {
        let head = Request::post("http://registry/tessera.registry.v1.RegistryService/Watch")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .expect("a request");
        let mut requests = self.requests.clone().ready().await.expect("room for a stream");
        let (response, mut body) = requests.send_request(head, false).expect("sends");
        let mut frame = vec![0];
        let length = u32::try_from(request.encoded_len()).expect("a small request");
        frame.extend(length.to_be_bytes());
        request.encode(&mut frame).expect("there is room");
        body.send_data(frame.into(), true).expect("sends");
        let response = response.await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("grpc-status"), "{response:?}");
        Told {
            body: response.into_body(),
            buffer: BytesMut::new(),
            messages: VecDeque::new(),
        }
    }
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Told {
    /// The next message; `None` at the end of the stream.
    ///
    /// # Panics
    /// When it does not come, or is not one.
    pub async fn next(&mut self) -> Option<wire::WatchResponse> {
        self.within(wait::PATIENCE).await.expect("something is told in time")
    }

    /// The next message, or an error when there is none for so long.
    ///
    /// # Errors
    /// Nothing came.
    ///
    /// # Panics
    /// When what comes is no message.
    pub async fn within(
        &mut self,
        bound: Duration,
    ) -> Result<Option<wire::WatchResponse>, tokio::time::error::Elapsed> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                return Ok(Some(message));
            }
            match tokio::time::timeout(bound, self.body.data()).await? {
                Some(Ok(data)) => {
                    // Read is read: the peer may send as much again.
                    let _ = self.body.flow_control().release_capacity(data.len());
                    self.buffer.extend_from_slice(&data);
                    self.split();
                }
                Some(Err(_)) | None => return Ok(None),
            }
        }
    }

    fn split(&mut self) {
        while self.buffer.len() >= 5 {
            let mut head = &self.buffer[..5];
            assert_eq!(head.get_u8(), 0, "not compressed");
            let length = usize::try_from(head.get_u32()).expect("64 bits");
            if self.buffer.len() < 5 + length {
                return;
            }
            self.buffer.advance(5);
            let message = self.buffer.split_to(length).freeze();
            self.messages
                .push_back(wire::WatchResponse::decode(message).expect("a message"));
        }
    }
}
