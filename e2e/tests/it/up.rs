//! `tessera up`: one command brings up the cluster, looks after it, and leaves nothing behind.

use std::{collections::BTreeMap, path::Path};

use e2e::{Process, run, wait};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

const PORTS: [&str; 8] = [
    "--registry-port",
    "0",
    "--ticket-port",
    "0",
    "--user-port",
    "0",
    "--console-port",
    "0",
];

/// `tessera up` on free ports, and what it says runs where.
struct Up {
    process: Process,
    registry: String,
    pids: BTreeMap<String, u32>,
}

impl Up {
    async fn start(data: &Path) -> Self {
        let data = data.display().to_string();
        let args = ["up", "--output", "json", "--data-dir", &data].into_iter().chain(PORTS);
        let mut process = Process::spawn("up", args, &[]);
        let ready = process.line("what runs where", |line| document(line, "up")).await;
        let rows = ready["members"].as_array().expect("members").clone();
        let pids = rows
            .iter()
            .map(|row| {
                let pid = row["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
                (row["name"].as_str().expect("a name").to_owned(), pid.expect("a pid"))
            })
            .collect();
        let registry = rows.iter().find(|row| row["name"] == "registry").expect("a registry");
        let registry = registry["address"].as_str().expect("its address").to_owned();
        Self {
            process,
            registry,
            pids,
        }
    }

    async fn tessera(&self, args: &[&str]) -> e2e::Ended {
        run(args.iter().copied().chain(["--registry", &self.registry])).await
    }
}

fn document(line: &str, event: &str) -> Option<Value> {
    let document: Value = serde_json::from_str(line).ok()?;
    (document["event"] == event).then_some(document)
}

fn pid(raw: u32) -> Pid {
    Pid::from_raw(i32::try_from(raw).expect("a pid fits")).expect("a pid is not 0")
}

async fn gone(pids: &BTreeMap<String, u32>) {
    wait::until("every child to end", || async {
        let alive: Vec<_> = pids
            .iter()
            .filter(|(_, raw)| test_kill_process(pid(**raw)).is_ok())
            .collect();
        if alive.is_empty() {
            Ok(())
        } else {
            Err(format!("{alive:?}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_command_brings_up_the_cluster_and_a_signal_takes_it_down() {
    let data = tempfile::tempdir().expect("a folder");
    let up = Up::start(data.path()).await;
    assert_eq!(up.pids.len(), 6, "{:?}", up.pids);
    up.tessera(&["demo"]).await.success();
    let listed = up.tessera(&["services", "--output", "json"]).await.success().json();
    let counts: BTreeMap<_, _> = listed["services"]
        .as_array()
        .expect("services")
        .iter()
        .map(|row| {
            (
                row["service"].as_str().unwrap_or_default(),
                row["instances"].as_u64().unwrap_or_default(),
            )
        })
        .collect();
    assert_eq!(
        counts,
        BTreeMap::from([("console", 1), ("ticket-svc", 3), ("user-svc", 1)])
    );

    let pids = up.pids.clone();
    let ended = up.process.stop().await;
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    gone(&pids).await;

    // What was bought is still there, and the programme is not seeded twice.
    let again = Up::start(data.path()).await;
    let events = again
        .tessera(&["call", "ticket-svc", "tessera.ticket.v1.TicketService/ListEvents", "{}"])
        .await
        .success();
    let events = events.json();
    let sold: u64 = events["events"]
        .as_array()
        .expect("events")
        .iter()
        .filter_map(|event| event["seatsSold"].as_u64())
        .sum();
    assert!(sold >= 1, "{events:#}");
    let mut titles: Vec<_> = events["events"]
        .as_array()
        .expect("events")
        .iter()
        .map(|event| event["title"].clone().to_string())
        .collect();
    let all = titles.len();
    titles.sort();
    titles.dedup();
    assert_eq!(titles.len(), all, "{titles:?}");
    again.process.stop().await.success();
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_told_what_runs_where_and_what_to_do_next() {
    let data = tempfile::tempdir().expect("a folder");
    let data_dir = data.path().display().to_string();
    let mut process = Process::spawn("up", ["up", "--data-dir", &data_dir].into_iter().chain(PORTS), &[]);
    process
        .line("a next command", |line| line.contains("demo").then_some(()))
        .await;
    let ended = process.stop().await.success();
    for word in [
        "registry",
        "ticket-svc",
        "user-svc",
        "grpcurl",
        "demo",
        "instances ticket-svc",
        "compose",
        "Ctrl-C",
    ] {
        assert!(ended.stdout.contains(word), "{word} is not in\n{}", ended.stdout);
    }
    assert!(!ended.stdout.contains('\u{1b}'), "no colour where there is no terminal");
}

#[tokio::test(flavor = "multi_thread")]
async fn once_is_up_demo_and_down() {
    let data = tempfile::tempdir().expect("a folder");
    let data = data.path().display().to_string();
    let ended = run(["up", "--once", "--data-dir", &data].into_iter().chain(PORTS))
        .await
        .success();
    assert!(ended.stdout.contains("SUCCEEDED"), "{}", ended.stdout);
}

/// A child that dies is reported with its last log lines and restarted; traffic returns to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_child_is_reported_and_restarted() {
    let data = tempfile::tempdir().expect("a folder");
    let mut up = Up::start(data.path()).await;
    let victim = up
        .pids
        .iter()
        .find(|(name, _)| name.starts_with("ticket"))
        .map(|(name, raw)| (name.clone(), *raw));
    let (name, raw) = victim.expect("a ticket service");
    kill_process(pid(raw), Signal::KILL).expect("a child of our child");
    let said = |what: &str| {
        let line = up
            .process
            .stderr()
            .lines()
            .find(|line| line.contains(&name) && line.contains(what))
            .map(str::to_owned);
        line.ok_or_else(|| up.process.stderr())
    };
    wait::until("the report", || async { said("starting it again") }).await;
    let back = wait::until("the restart", || async { said("is back") }).await;
    let digits = back.rsplit("process ").next().unwrap_or_default();
    let raw = digits
        .chars()
        .take_while(char::is_ascii_digit)
        .collect::<String>()
        .parse()
        .ok();
    up.pids.insert(name, raw.expect("its process id"));

    wait::until("three callable instances", || async {
        let listed = up
            .tessera(&["instances", "ticket-svc", "--output", "json"])
            .await
            .success()
            .json();
        match listed["instances"].as_array().map(Vec::len) {
            Some(3) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let demo = up
        .tessera(&["demo", "--buyers", "24", "--concurrency", "6", "--output", "json"])
        .await
        .success()
        .json();
    assert_eq!(demo["failed"], 0, "{demo:#}");
    let pids = up.pids.clone();
    up.process.stop().await.success();
    gone(&pids).await;
}

/// `kill -9` of the parent leaves nobody behind: the children's stdin ends, and they stop.
#[tokio::test(flavor = "multi_thread")]
async fn children_die_with_a_killed_parent() {
    let data = tempfile::tempdir().expect("a folder");
    let up = Up::start(data.path()).await;
    up.process.signal(Signal::KILL);
    let pids = up.pids.clone();
    up.process.end().await;
    gone(&pids).await;
    // And the folder is free again.
    let again = Up::start(data.path()).await;
    again.process.stop().await.success();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_up_on_the_same_folder_is_one_clear_line() {
    let data = tempfile::tempdir().expect("a folder");
    let up = Up::start(data.path()).await;
    let folder = data.path().display().to_string();
    let second = run(["up", "--data-dir", &folder].into_iter().chain(PORTS)).await;
    assert_eq!(second.code(), 1, "{}", second.stderr);
    assert_eq!(second.stderr.lines().count(), 1, "{}", second.stderr);
    assert!(
        second.stderr.contains(&folder) && second.stderr.contains("--data-dir"),
        "{}",
        second.stderr
    );
    up.process.stop().await.success();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_one_clear_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port().to_string();
    let data = tempfile::tempdir().expect("a folder");
    let folder = data.path().display().to_string();
    let args = [
        "up",
        "--data-dir",
        &folder,
        "--registry-port",
        &port,
        "--ticket-port",
        "0",
        "--user-port",
        "0",
        "--console-port",
        "0",
    ];
    let ended = run(args).await;
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(
        ended.stderr.contains(&port) && ended.stderr.contains("--registry-port"),
        "{}",
        ended.stderr
    );
}
