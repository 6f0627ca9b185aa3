//! The load generator's HTTP/2: just enough of RFC 9113 to put gRPC messages on a socket and to count what comes back.
//!
//! Not a client: it trusts its peer, decodes no headers and knows no deadlines. A general client costs as much as the server
//! that it calls, on the same two cores, and the figure would be of both. Every opponent that speaks gRPC is loaded through
//! this one file, so what it costs is the same for all. Requests look as a good client's do: header fields are indexed after
//! the first call, the receive windows never run dry, messages written in one turn share a packet.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    time::Instant,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::Failed;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
/// On SETTINGS and PING.
const ACK: u8 = 1;
/// On DATA and HEADERS.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

const FRAME_HEADER: usize = 9;
/// What both sides may send in one frame unless told otherwise; nobody here is told otherwise.
const FRAME_MAX: usize = 16_384;
/// The widest window there is.
pub(crate) const WIDE: u32 = 0x7fff_ffff;
/// The window of a connection, and of its streams, before anything is said.
const WINDOW: i64 = 65_535;
/// Received before the connection's window is opened again: half of what it can be.
const TOP_UP: u64 = 1 << 30;

/// What is told of a connection's streams.
pub(crate) trait Peer {
    /// A whole message has come on a stream.
    fn message(&mut self, out: &mut Out, stream: u32, message: &[u8]) -> Result<(), Failed>;
    /// The other side has ended a stream; of one that is reset this may be said twice.
    fn ended(&mut self, out: &mut Out, stream: u32) -> Result<(), Failed>;
}

/// One connection.
pub(crate) struct Connection {
    socket: TcpStream,
    input: Vec<u8>,
    filled: usize,
    /// Messages of which a part has come.
    partial: HashMap<u32, Vec<u8>>,
    /// Since the window was last opened.
    received: u64,
    ready: bool,
    /// What goes out.
    pub(crate) out: Out,
}

/// The sending half: everything is written into one buffer, which goes to the socket once a turn.
pub(crate) struct Out {
    bytes: Vec<u8>,
    authority: String,
    next_stream: u32,
    /// The fields that the peer's decoder has in its table, oldest first.
    table: Vec<String>,
    window: i64,
    initial_window: i64,
    /// What may still be sent on streams that stay open; a unary request is smaller than any first window.
    windows: HashMap<u32, i64>,
    blocked: VecDeque<Blocked>,
    /// When the socket was last read.
    pub(crate) read_at: Instant,
}

struct Blocked {
    stream: u32,
    rest: Vec<u8>,
    end: bool,
}

impl Connection {
    /// Connects, with windows as wide as can be.
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, Failed> {
        Self::open_narrow(address, WIDE).await
    }

    /// Connects; each stream may be sent `stream_window` bytes before [`Out::widen`] allows more.
    pub(crate) async fn open_narrow(address: SocketAddr, stream_window: u32) -> Result<Self, Failed> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let mut out = Out {
            bytes: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            authority: address.to_string(),
            next_stream: 1,
            table: Vec::new(),
            window: WINDOW,
            initial_window: WINDOW,
            windows: HashMap::new(),
            blocked: VecDeque::new(),
            read_at: Instant::now(),
        };
        // ENABLE_PUSH = 0, INITIAL_WINDOW_SIZE.
        let mut settings = vec![0, 2, 0, 0, 0, 0, 0, 4];
        settings.extend(stream_window.to_be_bytes());
        out.frame(SETTINGS, 0, 0, &settings);
        out.widen(0, WIDE - 65_535);
        let mut connection = Self {
            socket,
            input: vec![0; 4 * (FRAME_MAX + FRAME_HEADER)],
            filled: 0,
            partial: HashMap::new(),
            received: 0,
            ready: false,
            out,
        };
        while !connection.ready {
            connection.turn(&mut Nobody).await?;
        }
        Ok(connection)
    }

    /// Calls a method and waits for its one answer.
    pub(crate) async fn call(&mut self, path: &str, message: &[u8]) -> Result<Vec<u8>, Failed> {
        let stream = self.out.call(path, message);
        let mut answer = Answer {
            stream,
            message: None,
            ended: false,
        };
        while !answer.ended {
            self.turn(&mut answer).await?;
        }
        answer
            .message
            .ok_or_else(|| format!("{path}: refused; the server's log may say why").into())
    }

    /// Writes what there is to write, waits for something to read, and hands it on.
    pub(crate) async fn turn(&mut self, peer: &mut impl Peer) -> Result<(), Failed> {
        self.flush().await?;
        self.read(peer).await
    }

    /// Writes what there is to write.
    pub(crate) async fn flush(&mut self) -> Result<(), Failed> {
        if !self.out.bytes.is_empty() {
            self.socket.write_all(&self.out.bytes).await?;
            self.out.bytes.clear();
        }
        Ok(())
    }

    /// Waits for something to read and hands it on. Loses nothing when dropped early.
    pub(crate) async fn read(&mut self, peer: &mut impl Peer) -> Result<(), Failed> {
        let count = self.socket.read(&mut self.input[self.filled..]).await?;
        if count == 0 {
            return Err("the server has closed the connection".into());
        }
        self.out.read_at = Instant::now();
        self.filled += count;
        let mut at = 0;
        while let Some(header) = self.input[at..self.filled].first_chunk::<FRAME_HEADER>() {
            let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
            let (kind, flags) = (header[3], header[4]);
            let stream = u32::from_be_bytes([header[5] & 0x7f, header[6], header[7], header[8]]);
            let end = at + FRAME_HEADER + length;
            if length > FRAME_MAX {
                return Err(format!("a frame of {length} bytes").into());
            }
            if end > self.filled {
                break;
            }
            let frame = Frame {
                kind,
                flags,
                stream,
                payload: &self.input[at + FRAME_HEADER..end],
            };
            self.received += length as u64;
            self.ready |= kind == SETTINGS;
            handle(&frame, &mut self.out, &mut self.partial, peer)?;
            at = end;
        }
        self.input.copy_within(at..self.filled, 0);
        self.filled -= at;
        if self.received >= TOP_UP {
            self.out.widen(0, u32::try_from(self.received)?);
            self.received = 0;
        }
        Ok(())
    }
}

struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: &'a [u8],
}

fn handle(
    frame: &Frame<'_>,
    out: &mut Out,
    partial: &mut HashMap<u32, Vec<u8>>,
    peer: &mut impl Peer,
) -> Result<(), Failed> {
    let &Frame {
        kind,
        flags,
        stream,
        payload,
    } = frame;
    let ends = match kind {
        DATA => {
            if flags & PADDED != 0 {
                return Err("padding is not expected here".into());
            }
            data(stream, payload, out, partial, peer)?;
            flags & END_STREAM != 0
        }
        // CONTINUATION carries no flag of interest.
        HEADERS => flags & END_STREAM != 0,
        RST_STREAM => true,
        SETTINGS if flags & ACK == 0 => {
            out.settings(payload);
            out.frame(SETTINGS, ACK, 0, &[]);
            false
        }
        PING if flags & ACK == 0 => {
            out.frame(PING, ACK, 0, payload);
            false
        }
        GOAWAY => {
            let text = payload.get(8..).map(String::from_utf8_lossy).unwrap_or_default();
            return Err(format!("the server goes away: {text}").into());
        }
        WINDOW_UPDATE => {
            out.widened(stream, payload);
            false
        }
        _ => false,
    };
    if ends {
        partial.remove(&stream);
        out.windows.remove(&stream);
        peer.ended(out, stream)?;
    }
    Ok(())
}

/// Messages: a byte that says whether they are compressed (never), four of length, and their bytes.
fn data(
    stream: u32,
    payload: &[u8],
    out: &mut Out,
    partial: &mut HashMap<u32, Vec<u8>>,
    peer: &mut impl Peer,
) -> Result<(), Failed> {
    let Some(mut held) = partial.remove(&stream) else {
        let rest = messages(stream, payload, out, peer)?;
        if !rest.is_empty() {
            partial.insert(stream, rest.to_vec());
        }
        return Ok(());
    };
    held.extend_from_slice(payload);
    let rest = messages(stream, &held, out, peer)?.len();
    if rest > 0 {
        held.drain(..held.len() - rest);
        partial.insert(stream, held);
    }
    Ok(())
}

fn messages<'a>(stream: u32, mut bytes: &'a [u8], out: &mut Out, peer: &mut impl Peer) -> Result<&'a [u8], Failed> {
    while let Some(([_, length @ ..], rest)) = bytes.split_first_chunk::<5>() {
        let Some((message, rest)) = rest.split_at_checked(u32::from_be_bytes(*length) as usize) else {
            break;
        };
        peer.message(out, stream, message)?;
        bytes = rest;
    }
    Ok(bytes)
}

impl Out {
    /// A unary call: the request and its end. Answers with the stream.
    pub(crate) fn call(&mut self, path: &str, message: &[u8]) -> u32 {
        let stream = self.headers(path);
        self.put(stream, message, true);
        stream
    }

    /// Opens a stream of requests.
    pub(crate) fn open(&mut self, path: &str) -> u32 {
        let stream = self.headers(path);
        self.windows.insert(stream, self.initial_window);
        stream
    }

    /// Sends a message on an open stream.
    pub(crate) fn send(&mut self, stream: u32, message: &[u8]) {
        self.put(stream, message, false);
    }

    /// Allows the peer to send so much more on a stream; 0 is the connection.
    pub(crate) fn widen(&mut self, stream: u32, by: u32) {
        self.frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
        self.bytes.extend_from_slice(&length[1..]);
        self.bytes.extend_from_slice(&[kind, flags]);
        self.bytes.extend_from_slice(&stream.to_be_bytes());
        self.bytes.extend_from_slice(payload);
    }

    fn headers(&mut self, path: &str) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        // RFC 7541, appendix A: 3 is `:method: POST`, 6 is `:scheme: http`; below are the static names of the others.
        let mut block = vec![0x83, 0x86];
        self.field(&mut block, &[0x44], path);
        let authority = self.authority.clone();
        self.field(&mut block, &[0x41], &authority);
        self.field(&mut block, &[0x5f], "application/grpc");
        self.field(&mut block, b"\x40\x02te", "trailers");
        self.frame(HEADERS, END_HEADERS, stream, &block);
        stream
    }

    /// Indexed where the peer has it in its table, else literally, to be put there. The few fields of a run never fill it.
    fn field(&mut self, block: &mut Vec<u8>, name: &[u8], value: &str) {
        const STATIC: usize = 61;
        if let Some(age) = self.table.iter().rev().position(|known| known == value) {
            block.push(0x80 | u8::try_from(STATIC + 1 + age).unwrap_or(0));
            return;
        }
        block.extend_from_slice(name);
        block.push(u8::try_from(value.len()).unwrap_or(0));
        block.extend_from_slice(value.as_bytes());
        self.table.push(value.to_owned());
    }

    fn put(&mut self, stream: u32, message: &[u8], end: bool) {
        let mut bytes = Vec::with_capacity(5 + message.len());
        bytes.push(0);
        bytes.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(message);
        self.blocked.push_back(Blocked {
            stream,
            rest: bytes,
            end,
        });
        self.pump();
    }

    /// Sends what the windows allow, in order.
    fn pump(&mut self) {
        while let Some(mut first) = self.blocked.pop_front() {
            let own = self.windows.get(&first.stream).copied().unwrap_or(WINDOW);
            let room = usize::try_from(own.min(self.window)).unwrap_or(0).min(FRAME_MAX);
            if room == 0 {
                self.blocked.push_front(first);
                return;
            }
            let rest = first.rest.split_off(room.min(first.rest.len()));
            let is_last = first.end && rest.is_empty();
            self.frame(DATA, if is_last { END_STREAM } else { 0 }, first.stream, &first.rest);
            let sent = i64::try_from(first.rest.len()).unwrap_or(0);
            self.window -= sent;
            if let Some(own) = self.windows.get_mut(&first.stream) {
                *own -= sent;
            }
            if !rest.is_empty() {
                self.blocked.push_front(Blocked { rest, ..first });
            }
        }
    }

    fn widened(&mut self, stream: u32, payload: &[u8]) {
        let by = payload.first_chunk().map_or(0, |by| i64::from(u32::from_be_bytes(*by)));
        if stream == 0 {
            self.window += by;
        } else if let Some(own) = self.windows.get_mut(&stream) {
            *own += by;
        }
        self.pump();
    }

    fn settings(&mut self, payload: &[u8]) {
        const INITIAL_WINDOW_SIZE: u8 = 4;
        for entry in payload.chunks_exact(6) {
            if entry[1] == INITIAL_WINDOW_SIZE {
                let value = i64::from(u32::from_be_bytes([entry[2], entry[3], entry[4], entry[5]]));
                for own in self.windows.values_mut() {
                    *own += value - self.initial_window;
                }
                self.initial_window = value;
            }
        }
        self.pump();
    }
}

/// Expects nothing.
struct Nobody;

impl Peer for Nobody {
    fn message(&mut self, _: &mut Out, _: u32, _: &[u8]) -> Result<(), Failed> {
        Ok(())
    }

    fn ended(&mut self, _: &mut Out, _: u32) -> Result<(), Failed> {
        Ok(())
    }
}

struct Answer {
    stream: u32,
    message: Option<Vec<u8>>,
    ended: bool,
}

impl Peer for Answer {
    fn message(&mut self, _: &mut Out, stream: u32, message: &[u8]) -> Result<(), Failed> {
        if stream == self.stream {
            self.message = Some(message.to_vec());
        }
        Ok(())
    }

    fn ended(&mut self, _: &mut Out, stream: u32) -> Result<(), Failed> {
        self.ended |= stream == self.stream;
        Ok(())
    }
}
