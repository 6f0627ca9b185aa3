//! Row 41 at full size: five thousand connections that say nothing. Both ends of each are in this process, so it needs some 11,000
//! open files; where there are no more to be had it says so and is skipped.

use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit, setrlimit};
use tls::ClientAuth;
use tokio::{io::AsyncReadExt as _, net::TcpStream, task::JoinSet};

use crate::support::{
    PATIENCE,
    client::{Client, ask},
    limited, serve,
    world::World,
};

const SILENT: usize = 5_000;
/// Two a connection, and what the other tests of this process have open meanwhile. The server keeps a quarter of the limit free.
const FILES: u64 = 2 * SILENT as u64 + 4_000;

/// Whether there are files enough, after asking for them.
fn is_roomy() -> bool {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= FILES) {
        return true;
    }
    limit.current = Some(limit.maximum.map_or(FILES, |maximum| maximum.min(FILES)));
    let is_raised = limit.current == Some(FILES) && setrlimit(Resource::Nofile, limit).is_ok();
    if !is_raised {
        eprintln!(
            "skipped: this takes {FILES} open files, and the limit is {:?}",
            limit.maximum
        );
    }
    is_raised
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_silent_connections_hold_up_nobody_and_are_closed_in_time() {
    if !is_roomy() {
        return;
    }
    let world = World::new();
    let server = world.tls("server", ClientAuth::Optional);
    for tls in [None, server.server().cloned()] {
        let is_plain = tls.is_none();
        let limits = |limits: &mut service_host::Limits| {
            // They come from one address, and all of them are to be there at once.
            limits.max_connections_per_peer = SILENT + 100;
            limits.preface_timeout = PATIENCE / 2;
        };
        let running = serve(limited(limits).tls(tls)).await;
        let address = running.local_addr();
        let begun = Instant::now();
        let mut held = Vec::with_capacity(SILENT);
        for _ in 0..SILENT {
            held.push(TcpStream::connect(address).await.expect("listening"));
        }
        let came = begun.elapsed();
        // Whoever has something to say is heard.
        let client = if is_plain {
            Client::connect(address).await
        } else {
            let socket = TcpStream::connect(address).await.expect("listening");
            let nobody = world.load(None, ClientAuth::None);
            let connector = nobody.client().expect("a bundle");
            let stream = connector.connect(socket, "127.0.0.1", &tls::Expected::Host).await;
            Client::over(stream.expect("gets in"), address).await
        };
        let answered = tokio::time::timeout(PATIENCE, client.say(ask("hello", None))).await;
        answered.expect("in time").expect("answered");

        // All of them are closed, and by their time alone: not one was turned away for the others.
        let mut ends = JoinSet::new();
        for mut socket in held {
            ends.spawn(async move {
                let mut rest = Vec::new();
                let _ = socket.read_to_end(&mut rest).await;
                begun.elapsed()
            });
        }
        let mut first = Duration::MAX;
        for _ in 0..SILENT {
            let ended = tokio::time::timeout(PATIENCE * 2, ends.join_next()).await;
            first = first.min(ended.expect("closed in time").expect("one more").expect("no panic"));
        }
        assert!(
            first >= PATIENCE / 2,
            "the first was closed after {first:?}, they came within {came:?}"
        );
        client.say(ask("hello", None)).await.expect("goes on");
    }
}
