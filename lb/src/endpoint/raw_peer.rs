//! For tests: a peer that speaks HTTP/2 frame by frame (RFC 9113 section 4), and so can say what h2's server never would.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;

pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
/// Of SETTINGS and PING.
pub(super) const ACK: u8 = 1;
/// Of HEADERS.
pub(super) const END_HEADERS: u8 = 4;
/// `:status 200`, by the static table of HPACK.
pub(super) const STATUS_200: &[u8] = &[0x88];

/// The peer's end of a connection.
pub(super) struct RawPeer(DuplexStream);

/// What was received.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

/// The frame's bytes.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// SETTINGS_MAX_CONCURRENT_STREAMS.
pub(super) fn streams_allowed(limit: u32) -> Vec<u8> {
    let mut payload = vec![0, 3];
    payload.extend(limit.to_be_bytes());
    frame(SETTINGS, 0, 0, &payload)
}

impl RawPeer {
    /// Both ends of a connection; the client's is still to be spoken on.
    pub(super) fn pair() -> (DuplexStream, Self) {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        (ours, Self(theirs))
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("the client reads");
    }

    /// The client's connection preface.
    pub(super) async fn preface(&mut self) {
        self.0.read_exact(&mut [0; 24]).await.expect("a preface");
    }

    pub(super) async fn receive(&mut self) -> Frame {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await.expect("a frame");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).expect("small")];
        self.0.read_exact(&mut payload).await.expect("a frame");
        Frame {
            kind: head[3],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload,
        }
    }

    /// The next frame of that kind. A GOAWAY instead fails the test.
    pub(super) async fn next(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.receive().await;
            if frame.kind == kind {
                return frame;
            }
            assert!(frame.kind != GOAWAY, "the client goes away");
        }
    }

    /// Returns when the client has processed all that was sent.
    pub(super) async fn sync(&mut self) {
        const MINE: [u8; 8] = [7; 8];
        self.send(&frame(PING, 0, 0, &MINE)).await;
        while self.next(PING).await.payload != MINE {}
    }
}
