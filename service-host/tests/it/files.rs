//! A process that is out of file descriptors: no spin, no harm to who is connected, and it recovers.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::TcpStream;

use crate::support::{
    PATIENCE,
    client::{Client, ask},
    limited,
    raw::{PING, Raw, SETTINGS},
    serve,
};

/// The CPU time of this process. Holds its file open: there are no more to be had when it is read.
struct Cpu(File);

impl Cpu {
    fn open() -> Self {
        Self(File::open("/proc/self/stat").expect("Linux"))
    }

    fn spent(&self) -> Duration {
        let mut buffer = [0; 1024];
        let length = self.0.read_at(&mut buffer, 0).expect("readable");
        let stat = String::from_utf8_lossy(&buffer[..length]);
        // Fields 14 and 15 are user and system time in ticks of 10 ms; the name in field 2 may contain blanks.
        let after_name = stat.rsplit_once(')').expect("a name").1;
        let ticks = after_name
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().expect("ticks"));
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }
}

/// In a process of its own, because the limit is the process's.
#[test]
#[ignore = "started by the other test of this file"]
fn child() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let _guard = telemetry::init(telemetry::Config {
            service_name: "test-svc".into(),
            service_version: "0".into(),
            instance_id: None,
            log_format: telemetry::LogFormat::Text,
            default_filter: "info".into(),
        })
        .expect("installed");
        // The cap on connections is computed when the server starts and would keep us from the limit: lower it after.
        let running = serve(limited(|_| {})).await;
        let client = Client::connect(running.local_addr()).await;
        client.say(ask("hello", None)).await.expect("answered");
        let cpu = Cpu::open();
        let open = std::fs::read_dir("/proc/self/fd").expect("Linux").count() as u64;
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = Some(open + 20);
        setrlimit(Resource::Nofile, limit).expect("lowered");

        // Both ends are in this process, so that every connection takes two; at the end some connect only at the client.
        let mut open = Vec::new();
        while let Ok(socket) = TcpStream::connect(running.local_addr()).await {
            open.push(socket);
        }
        assert!(open.len() >= 10, "{}", open.len());

        let (cpu_before, started) = (cpu.spent(), Instant::now());
        let calls = async {
            while started.elapsed() < Duration::from_secs(1) {
                client
                    .say(ask("hello", None))
                    .await
                    .expect("who is connected is served");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        calls.await;
        let spent = cpu.spent() - cpu_before;
        // tonic's loop takes 50 to 97 % of a core; ours and some 50 calls take a few per cent.
        assert!(
            spent < Duration::from_millis(400),
            "{spent:?} of CPU in a second: it spins"
        );

        open.clear();
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "new connections are served again");
            let mut raw = Raw::open(running.local_addr(), &[]).await;
            if raw.next_of(SETTINGS).await.is_some() && raw.send(PING, 0, 0, &[1; 8]).await.is_ok() {
                break;
            }
        }
        running.drain(Duration::from_secs(1)).await;
    });
}

#[test]
fn out_of_files_is_waited_out() {
    let output = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "files::child", "--ignored", "--nocapture"])
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    let (out, log) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}\n{log}");
    assert_eq!(
        log.matches("out of file descriptors").count(),
        1,
        "said, and said once: {log}"
    );
}
