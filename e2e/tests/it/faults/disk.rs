//! Disks that fail, fill up or crawl.

use std::time::Duration;

use e2e::{
    registry::{Entry, Fleet, Load, Recorder, RegistryProcess, check, wire},
    strace::Strace,
    trial::{Need, Trial, sh},
};
use rand::RngExt as _;

const STRACE: Need = Need::Tool("strace");

/// Row 4. One fsync or write fails, and every later one would succeed (which is what Linux does after it has dropped the dirty
/// pages). The change is not acknowledged, nothing is after it, the process ends with an error that names the cause, and a
/// restart serves what was acknowledged.
#[tokio::test(flavor = "multi_thread")]
async fn an_fsync_that_fails_once_ends_the_process_and_acknowledges_nothing() {
    let name = "an_fsync_that_fails_once_ends_the_process_and_acknowledges_nothing";
    let Some(mut trial) = Trial::with(name, &[STRACE]).await else {
        return;
    };
    let sync = "fsync,fdatasync";
    for (call, error) in [(sync, "EIO"), (sync, "ENOSPC"), (sync, "EDQUOT"), ("pwrite64", "EIO")] {
        let mut registry = RegistryProcess::start().await;
        let load = Load::until_it_fails(&registry, Load::books("a-svc", 4, &mut trial.rng));
        load.flows(20).await;
        let when = trial.rng.random_range(1..30);
        let fault = format!("{call}:error={error}:when={when}");
        let Some(strace) = Strace::inject(registry.process().pid(), &[&fault]).await else {
            return;
        };
        // It ends by itself: nobody stops it.
        let ended = registry.end().await;
        strace.end().await;
        assert_eq!(ended.code(), 1, "{error}: {ended:?}");
        assert!(
            ended.stderr.contains("the registry cannot make changes durable") && ended.stderr.contains("os error"),
            "{error}: {ended:?}"
        );
        let mut books = load.ended().await;

        registry.begin().await;
        check(&registry, &mut books).await.expect("lists");
        let load = Load::whatever_happens(&registry, books);
        load.flows(20).await;
        check(&registry, &mut load.stop().await).await.expect("lists");
    }
}

/// Row 4, the single write: its caller is told that the outcome is unknown, never that it is done.
#[tokio::test(flavor = "multi_thread")]
async fn the_write_whose_fsync_fails_is_not_acknowledged() {
    let name = "the_write_whose_fsync_fails_is_not_acknowledged";
    let Some(_trial) = Trial::with(name, &[STRACE]).await else {
        return;
    };
    let mut registry = RegistryProcess::start().await;
    let mut client = registry.client();
    let register = async |client: &mut wire::Client, id: &str| {
        let request = wire::lasting([wire::instance("a-svc", id)]);
        client
            .register(request)
            .await
            .map(|granted| granted.into_inner().revision)
    };
    let before = register(&mut client, "before").await.expect("registers");
    let faults = ["fsync,fdatasync:error=EIO:when=1"];
    let Some(strace) = Strace::inject(registry.process().pid(), &faults).await else {
        return;
    };
    let status = register(&mut client, "hit").await.expect_err("its fsync fails");
    assert!(wire::in_doubt(&status), "{status:?}");
    let ended = registry.end().await;
    assert_eq!(ended.code(), 1, "{ended:?}");
    strace.end().await;
    registry.begin().await;
    let listing = wire::list(&mut registry.client(), "").await.expect("lists");
    assert!(listing.revision >= before, "{listing:?}");
    assert!(
        listing.instances.iter().any(|instance| instance.id == "before"),
        "{listing:?}"
    );
    register(&mut registry.client(), "after")
        .await
        .expect("a restart takes writes again");
}

/// Row 6. Each fsync takes half a second, for some seconds. Heartbeats are answered while a commit is on its way, so no lease
/// of 2 s lapses; writes are slow, and none is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_crawls_expires_nobody() {
    let name = "a_disk_that_crawls_expires_nobody";
    let Some(mut trial) = Trial::with(name, &[STRACE]).await else {
        return;
    };
    let registry = RegistryProcess::start().await;
    let ttl = Duration::from_secs(2);
    let fleet = Fleet::start(&registry, "b-svc", "owner", 50, ttl).await;
    let recorder = Recorder::start(registry.channel(), wire::WatchRequest::default());
    let load = Load::whatever_happens(&registry, Load::books("a-svc", 8, &mut trial.rng));
    load.flows(50).await;
    fleet.beats(2).await;

    let faults = ["fsync,fdatasync:delay_enter=500000"];
    let Some(strace) = Strace::inject(registry.process().pid(), &faults).await else {
        return;
    };
    let resident = registry.resident();
    // Two commits and more are that slow; each carries one call of every writer.
    load.flows(16).await;
    // A commit is always on its way now, and takes half a second or more: ten rounds, 400 ms apart, see several of them.
    fleet.beats(10).await;
    let grown = registry.resident().saturating_sub(resident);
    strace.end().await;

    load.flows(50).await;
    fleet.beats(2).await;
    assert_eq!(fleet.lost(), [""; 0], "nobody is to register again");
    let expired = recorder.look(|journal| journal.removed(wire::RemovalReason::Expired).len());
    assert_eq!(expired, 0, "nobody lapsed");
    assert!(grown < 32 << 20, "memory grew by {grown} bytes");
    check(&registry, &mut load.stop().await).await.expect("lists");

    // A single change waits for the disk, and heartbeats do not wait for the change.
    let mut client = registry.client();
    let lease = client.register(wire::lasting([wire::instance("a-svc", "beats")])).await;
    let lease = lease.expect("registers").into_inner();
    let faults = ["fsync,fdatasync:delay_enter=3000000"];
    let Some(strace) = Strace::inject(registry.process().pid(), &faults).await else {
        return;
    };
    let mut writer = registry.client();
    let change = tokio::spawn(async move { writer.register(wire::lasting([wire::instance("a-svc", "waits")])).await });
    let mut beats = 0;
    while !change.is_finished() {
        client.renew(wire::renewal(&lease)).await.expect("lives");
        beats += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(
        beats >= 5,
        "{beats} heartbeats were answered while a change was on its way"
    );
    change.await.expect("no panic").expect("registers");
    strace.end().await;

    // The proof that expiry works at all.
    let silent = fleet.silence(1);
    recorder
        .shows("the silent one to lapse", |journal| {
            journal.removed(wire::RemovalReason::Expired) == silent
        })
        .await;
}

/// Row 5 without root: for a while no write of the process finds room. Writes are shed, the rest goes on, and then all of it.
#[tokio::test(flavor = "multi_thread")]
async fn writes_that_find_no_room_are_shed_until_there_is_some() {
    let name = "writes_that_find_no_room_are_shed_until_there_is_some";
    let Some(mut trial) = Trial::with(name, &[STRACE]).await else {
        return;
    };
    let mut registry = RegistryProcess::start().await;
    let fleet = Fleet::start(&registry, "b-svc", "owner", 20, Duration::from_secs(2)).await;
    let load = Load::whatever_happens(&registry, Load::books("a-svc", 4, &mut trial.rng));
    for _ in 0..3 {
        load.flows(50).await;
        let faults = ["pwrite64,ftruncate,fallocate:error=ENOSPC"];
        let Some(strace) = Strace::inject(registry.process().pid(), &faults).await else {
            return;
        };
        load.sheds(10).await;
        fleet.beats(5).await;
        wire::list(&mut registry.client(), "").await.expect("reads go on");
        strace.end().await;
    }
    load.flows(50).await;
    assert_eq!(fleet.lost(), [""; 0], "nobody is to register again");
    let mut books = load.stop().await;
    check(&registry, &mut books).await.expect("lists");
    registry.kill().await;
    registry.begin().await;
    check(&registry, &mut books).await.expect("lists");
}

/// A file system of a few MiB. Unmounted when dropped.
#[derive(Debug)]
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(size: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = format!("size={size}");
        let target = folder.path().display().to_string();
        sh("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", &target]);
        Self(folder)
    }

    fn ballast(&self) -> std::path::PathBuf {
        self.0.path().join("ballast")
    }

    /// Takes all room that is left.
    fn fill(&self) {
        use std::io::Write as _;
        let mut ballast = std::fs::File::create(self.ballast()).expect("a file");
        while ballast.write_all(&[1; 4_096]).is_ok() {}
    }

    fn clear(&self) {
        std::fs::remove_file(self.ballast()).expect("it was there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process may still have a file open.
        let target = self.0.path().display().to_string();
        let _ = std::process::Command::new("umount").args(["-l", &target]).status();
    }
}

/// Row 5. The disk fills up. Writes are shed with RESOURCE_EXHAUSTED; lists, watches and heartbeats go on; when there is room
/// again writes go on, without a restart.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_sheds_writes_and_nothing_else() {
    let name = "a_full_disk_sheds_writes_and_nothing_else";
    let Some(mut trial) = Trial::with(name, &[Need::Root]).await else {
        return;
    };
    let disk = SmallDisk::mount("24m");
    let mut registry = RegistryProcess::on(&disk.0.path().join("registry"), &[]).await;
    let ttl = Duration::from_secs(3);
    let fleet = Fleet::start(&registry, "b-svc", "owner", 20, ttl).await;
    let recorder = Recorder::start(registry.channel(), wire::WatchRequest::default());
    let load = Load::whatever_happens(&registry, Load::books("a-svc", 4, &mut trial.rng));
    load.flows(50).await;
    let mut client = registry.client();
    let leaver = client
        .register(wire::lasting([wire::instance("b-svc", "leaver")]))
        .await;
    let leaver = leaver.expect("registers").into_inner();

    disk.fill();
    // Large ones, so that the room within the store's own file is used up too.
    let large = |number: usize| wire::Instance {
        metadata: (0..15).map(|key| (format!("k{key}"), "x".repeat(1_024))).collect(),
        ..wire::instance("large", &number.to_string())
    };
    let mut last = None;
    for number in 0..2_000 {
        if let Err(status) = client.register(wire::lasting([large(number)])).await {
            last = Some(status);
            break;
        }
    }
    let status = last.expect("the disk is full");
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status:?}");
    fleet.beats(5).await;
    wire::list(&mut client, "").await.expect("reads go on");
    // Others have filled the disk to the last byte; what only ends things has room that is kept for it.
    let ended = client.deregister(wire::deregistration(&leaver)).await;
    recorder
        .reaches(ended.expect("room is kept for this").into_inner().revision)
        .await;
    let silent = fleet.silence(1);
    recorder
        .shows("a lease to lapse", |journal| {
            journal.removed(wire::RemovalReason::Expired) == silent
        })
        .await;
    let late = Recorder::start(registry.channel(), wire::WatchRequest::default());
    late.shows("a new watch", |journal| {
        matches!(journal.entries.get(1), Some(Entry::Snapshot { .. }))
    })
    .await;

    disk.clear();
    load.flows(50).await;
    fleet.beats(2).await;
    assert_eq!(fleet.lost(), [""; 0], "nobody is to register again");
    let mut books = load.stop().await;
    let listing = check(&registry, &mut books).await.expect("lists");
    assert_eq!(
        recorder.look(|journal| journal.removed(wire::RemovalReason::Expired).len()),
        1,
        "the silent one and nobody else"
    );
    let broken = recorder
        .stop()
        .entries
        .into_iter()
        .filter(|entry| matches!(entry, Entry::Broken(_)));
    assert_eq!(broken.count(), 0, "the watch went on");
    drop(fleet);
    registry.kill().await;
    registry.begin().await;
    let again = check(&registry, &mut books).await.expect("lists");
    assert!(again.revision >= listing.revision);

    // It starts on a full disk, and what only ends things goes on there; nothing of that needs the room for good.
    let mut client = registry.client();
    let mut leavers = Vec::new();
    for number in 0..20 {
        let leaver = wire::lasting([wire::instance("b-svc", &format!("leaver-{number}"))]);
        leavers.push(client.register(leaver).await.expect("registers").into_inner());
    }
    disk.fill();
    registry.kill().await;
    registry.begin().await;
    let mut client = registry.client();
    for leaver in &leavers {
        let ended = client.deregister(wire::deregistration(leaver)).await;
        ended.expect("room is kept for this");
    }
    let status = client.register(wire::lasting([large(0)])).await.expect_err("is full");
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status:?}");
    disk.clear();
    let spare = || std::fs::metadata(registry.folder().join("registry.spare")).map_or(0, |found| found.len());
    let begun = std::time::Instant::now();
    while spare() < 4 << 20 {
        assert!(begun.elapsed() < Duration::from_secs(30), "{} bytes are kept", spare());
        // It is filled after commits; the first of these may still be refused.
        let _ = client.register(wire::lasting([wire::instance("b-svc", "after")])).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    check(&registry, &mut books).await.expect("lists");
}
