//! A peer that speaks HTTP/2 frames (RFC 9113) by hand, so that it can also misspeak them.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::PATIENCE;

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
/// A type that RFC 9113 does not know.
pub(crate) const UNKNOWN: u8 = 0x42;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// RFC 9113, 7: error codes.
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The error code of a RST_STREAM or GOAWAY frame.
    pub(crate) fn error_code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes"))
    }

    /// The settings of a SETTINGS frame.
    pub(crate) fn settings(&self) -> impl Iterator<Item = (u16, u32)> {
        self.payload.chunks_exact(6).map(|entry| {
            let id = u16::from_be_bytes([entry[0], entry[1]]);
            (id, u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]))
        })
    }
}

pub(crate) struct Raw {
    pub(crate) socket: TcpStream,
}

impl Raw {
    /// Connects and says nothing.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.expect("the kernel accepts");
        socket.set_nodelay(true).expect("a TCP socket");
        Self { socket }
    }

    /// Connects and opens HTTP/2 with those settings.
    pub(crate) async fn open(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut raw = Self::connect(address).await;
        raw.socket.write_all(PREFACE).await.expect("written");
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()[..]].concat())
            .collect();
        raw.send(SETTINGS, 0, 0, &payload).await.expect("written");
        raw
    }

    pub(crate) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        self.socket.write_all(&encode(kind, flags, stream, payload)).await
    }

    /// The next frame, or `None` when the server has closed the connection (cleanly or not).
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let read = async {
            let mut header = [0; 9];
            self.socket.read_exact(&mut header).await.ok()?;
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
            let mut payload = vec![0; length as usize];
            self.socket.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes([header[5] & 0x7f, header[6], header[7], header[8]]);
            Some(Frame {
                kind: header[3],
                flags: header[4],
                stream,
                payload,
            })
        };
        timeout(PATIENCE, read).await.expect("a frame or the end")
    }

    /// Reads until a frame of that kind; `None` if the connection ends first.
    pub(crate) async fn next_of(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind && !(kind == SETTINGS && frame.flags & ACK != 0) {
                return Some(frame);
            }
        }
    }

    /// Waits until the server closes; fails if it does not.
    pub(crate) async fn closed(&mut self) {
        while self.next().await.is_some() {}
    }
}

pub(crate) fn encode(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small frame").to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// HPACK (RFC 7541) literals without indexing or Huffman coding: long, and impossible to get wrong.
pub(crate) fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut block = vec![0];
    for text in [name, value] {
        integer(&mut block, text.len());
        block.extend(text.as_bytes());
    }
    block
}

/// A length with a 7-bit prefix (RFC 7541, 5.1).
fn integer(block: &mut Vec<u8>, mut value: usize) {
    if value < 127 {
        block.push(u8::try_from(value).expect("below 127"));
        return;
    }
    block.push(127);
    value -= 127;
    while value >= 128 {
        block.push(u8::try_from(value % 128).expect("below 128") | 0x80);
        value /= 128;
    }
    block.push(u8::try_from(value).expect("below 128"));
}

/// The headers of a gRPC call.
pub(crate) fn call_headers(path: &str) -> Vec<u8> {
    [
        literal(":method", "POST"),
        literal(":scheme", "http"),
        literal(":path", path),
        literal(":authority", "test"),
        literal("te", "trailers"),
        literal("content-type", "application/grpc"),
    ]
    .concat()
}

/// One length-prefixed gRPC message.
pub(crate) fn message(payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a small message").to_be_bytes();
    [&[0][..], &length[..], payload].concat()
}
