//! The part of ZooKeeper's protocol that a registry needs, by hand: connect, create, getChildren, getData, setData, multi.
//!
//! The clients that exist for Rust bring a worker task, locks and channels to every request; this brings what
//! [`crate::http2`] brings to gRPC. Answers of a session come in the order of its requests.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{Failed, stats::Sample};

const CREATE: i32 = 1;
const GET_DATA: i32 = 4;
const SET_DATA: i32 = 5;
const GET_CHILDREN: i32 = 8;
const MULTI: i32 = 14;
const MULTI_READ: i32 = 22;
const EPHEMERAL: i32 = 1;
/// The longest that a server with the default tick grants: no figure leaves a session silent for so long.
const SESSION_MILLIS: i32 = 40_000;
/// xid of a watch's event.
const EVENT: i32 = -1;

/// One session, on its own connection.
pub(crate) struct Session {
    socket: TcpStream,
    input: Vec<u8>,
    /// What goes out at the next turn.
    pub(crate) out: Vec<u8>,
    xid: i32,
    /// When the socket was last read.
    pub(crate) read_at: Instant,
}

/// What has come.
pub(crate) enum Came {
    /// An answer of so many bytes.
    Answer(usize),
    /// A watch has fired.
    Event,
}

impl Session {
    /// Connects and begins a session.
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, Failed> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let mut session = Self {
            socket,
            input: Vec::new(),
            out: Vec::new(),
            xid: 0,
            read_at: Instant::now(),
        };
        let start = session.begin();
        session.out.extend(0_i32.to_be_bytes());
        session.out.extend(0_i64.to_be_bytes());
        session.out.extend(SESSION_MILLIS.to_be_bytes());
        session.out.extend(0_i64.to_be_bytes());
        session.buffer(&[0; 16]);
        session.out.push(0);
        session.end(start);
        let mut answer = None;
        while answer.is_none() {
            session.flush().await?;
            session.fill().await?;
            answer = session.frame();
        }
        Ok(session)
    }

    /// Creates a node; `ephemeral` ones live as long as the session.
    pub(crate) fn create(&mut self, path: &str, data: &[u8], ephemeral: bool) {
        let start = self.request(CREATE);
        self.create_body(path, data, ephemeral);
        self.end(start);
    }

    /// Creates many ephemeral nodes, all or none.
    pub(crate) fn create_all(&mut self, nodes: impl Iterator<Item = (String, Vec<u8>)>) {
        let start = self.request(MULTI);
        for (path, data) in nodes {
            self.part(CREATE);
            self.create_body(&path, &data, true);
        }
        self.last_part();
        self.end(start);
    }

    /// Reads a node, and watches it if that is asked for.
    pub(crate) fn get(&mut self, path: &str, watch: bool) {
        let start = self.request(GET_DATA);
        self.buffer(path.as_bytes());
        self.out.push(watch.into());
        self.end(start);
    }

    /// Reads many nodes with one request.
    pub(crate) fn get_all<'a>(&mut self, paths: impl Iterator<Item = &'a str>) {
        let start = self.request(MULTI_READ);
        for path in paths {
            self.part(GET_DATA);
            self.buffer(path.as_bytes());
            self.out.push(0);
        }
        self.last_part();
        self.end(start);
    }

    /// The names of a node's children.
    pub(crate) fn children(&mut self, path: &str) {
        let start = self.request(GET_CHILDREN);
        self.buffer(path.as_bytes());
        self.out.push(0);
        self.end(start);
    }

    /// Changes a node, whatever its version.
    pub(crate) fn set(&mut self, path: &str, data: &[u8]) {
        let start = self.request(SET_DATA);
        self.buffer(path.as_bytes());
        self.buffer(data);
        self.out.extend((-1_i32).to_be_bytes());
        self.end(start);
    }

    /// Sends what was asked and waits for one answer.
    pub(crate) async fn answer(&mut self) -> Result<(), Failed> {
        loop {
            let mut answered = false;
            self.turn(|came, _| {
                answered |= matches!(came, Came::Answer(_));
                Ok(())
            })
            .await?;
            if answered {
                return Ok(());
            }
        }
    }

    /// Writes what there is to write, waits for something to read, and hands it on.
    pub(crate) async fn turn(
        &mut self,
        mut came: impl FnMut(Came, &mut Self) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        self.flush().await?;
        self.fill().await?;
        while let Some(frame) = self.frame() {
            let header = frame.first_chunk::<16>().ok_or("a short answer")?;
            let [x0, x1, x2, x3, .., e0, e1, e2, e3] = *header;
            let error = i32::from_be_bytes([e0, e1, e2, e3]);
            if error != 0 {
                return Err(format!("ZooKeeper answers with error {error}").into());
            }
            let what = if i32::from_be_bytes([x0, x1, x2, x3]) == EVENT {
                Came::Event
            } else {
                Came::Answer(frame.len() - header.len())
            };
            came(what, self)?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Failed> {
        if !self.out.is_empty() {
            self.socket.write_all(&self.out).await?;
            self.out.clear();
        }
        Ok(())
    }

    async fn fill(&mut self) -> Result<(), Failed> {
        self.input.reserve(16 << 10);
        if self.socket.read_buf(&mut self.input).await? == 0 {
            return Err("ZooKeeper has closed the connection".into());
        }
        self.read_at = Instant::now();
        Ok(())
    }

    fn frame(&mut self) -> Option<Vec<u8>> {
        let length = usize::try_from(i32::from_be_bytes(*self.input.first_chunk()?)).ok()?;
        if self.input.len() < 4 + length {
            return None;
        }
        let frame = self.input[4..4 + length].to_vec();
        self.input.drain(..4 + length);
        Some(frame)
    }

    fn begin(&mut self) -> usize {
        self.out.extend([0; 4]);
        self.out.len()
    }

    fn request(&mut self, kind: i32) -> usize {
        let start = self.begin();
        self.xid += 1;
        self.out.extend(self.xid.to_be_bytes());
        self.out.extend(kind.to_be_bytes());
        start
    }

    fn end(&mut self, start: usize) {
        let length = i32::try_from(self.out.len() - start).unwrap_or(i32::MAX);
        self.out[start - 4..start].copy_from_slice(&length.to_be_bytes());
    }

    fn buffer(&mut self, bytes: &[u8]) {
        self.out
            .extend(i32::try_from(bytes.len()).unwrap_or(i32::MAX).to_be_bytes());
        self.out.extend_from_slice(bytes);
    }

    fn create_body(&mut self, path: &str, data: &[u8], ephemeral: bool) {
        self.buffer(path.as_bytes());
        self.buffer(data);
        // One entry of access control: everything, to everyone.
        self.out.extend(1_i32.to_be_bytes());
        self.out.extend(31_i32.to_be_bytes());
        self.buffer(b"world");
        self.buffer(b"anyone");
        self.out.extend(if ephemeral { EPHEMERAL } else { 0 }.to_be_bytes());
    }

    fn part(&mut self, kind: i32) {
        self.out.extend(kind.to_be_bytes());
        self.out.push(0);
        self.out.extend((-1_i32).to_be_bytes());
    }

    fn last_part(&mut self) {
        self.out.extend((-1_i32).to_be_bytes());
        self.out.push(1);
        self.out.extend((-1_i32).to_be_bytes());
    }
}

/// Asks again and again: writes the requests of one operation.
pub(crate) trait Work {
    /// One operation.
    fn ask(&mut self, session: &mut Session) -> Asked;
}

/// What an operation has asked for.
pub(crate) struct Asked {
    /// Answers to come.
    pub(crate) answers: usize,
    /// Bytes of them, at least: a multi answers, too, when one of its parts has failed.
    pub(crate) bytes: usize,
    /// What counts when they have.
    pub(crate) units: u64,
}

/// A closed loop over sessions, `in_flight` operations on each.
pub(crate) async fn round<W: Work>(
    members: &mut [(Session, W)],
    in_flight: usize,
    time: Duration,
    units: u64,
) -> Result<Sample, Failed> {
    let begun = Instant::now();
    let most = units / members.len() as u64;
    let runs = members
        .iter_mut()
        .map(|(session, work)| run(session, work, in_flight, begun + time, most));
    let ends = try_join_all(runs).await?;
    let mut sample = Sample::new(begun.elapsed());
    for (units, latencies) in ends {
        sample.add(units, latencies);
    }
    Ok(sample)
}

async fn run<W: Work>(
    session: &mut Session,
    work: &mut W,
    in_flight: usize,
    until: Instant,
    most: u64,
) -> Result<(u64, Vec<Duration>), Failed> {
    let mut open: VecDeque<(Asked, Instant)> = VecDeque::new();
    let (mut units, mut asked, mut latencies) = (0, 0, Vec::new());
    let mut ask = |session: &mut Session, open: &mut VecDeque<(Asked, Instant)>| {
        let next = work.ask(session);
        let units = next.units;
        open.push_back((next, Instant::now()));
        units
    };
    for _ in 0..in_flight {
        asked += ask(session, &mut open);
    }
    while !open.is_empty() {
        session
            .turn(|came, session| {
                let (Came::Answer(bytes), Some((first, begun))) = (came, open.front_mut()) else {
                    return Ok(());
                };
                first.answers -= 1;
                first.bytes = first.bytes.saturating_sub(bytes);
                if first.answers > 0 {
                    return Ok(());
                }
                if first.bytes > 0 {
                    return Err(format!("ZooKeeper's answer lacks {} bytes", first.bytes).into());
                }
                units += first.units;
                latencies.push(session.read_at - *begun);
                open.pop_front();
                if session.read_at < until && asked < most {
                    asked += ask(session, &mut open);
                }
                Ok(())
            })
            .await?;
    }
    Ok((units, latencies))
}
