//! Row 11. Resuming where the history ends: below it, on its edge, above it; before and after a kill.

use e2e::{
    registry::{Entry, Journal, Recorder, RegistryProcess, wire},
    trial::Trial,
};
use proto::registry::v1::{instance_event::Event, snapshot::Cause};
use tonic::Code;

const KEPT: usize = 50;

async fn resume(registry: &RegistryProcess, after: i64, history: &str, until: i64) -> Journal {
    let request = wire::WatchRequest {
        service: "a-svc".into(),
        start_after_revision: after,
        history_id: history.into(),
        ..Default::default()
    };
    let recorder = Recorder::start(registry.channel(), request);
    recorder.reaches(until.max(after)).await;
    recorder.shows("an answer", |journal| journal.entries.len() > 1).await;
    recorder.stop()
}

/// A consumer disconnects, more happens than the history keeps, it returns: it is told everything, explicitly anew where the
/// history has gone past it, and change by change where it has not. A removal at the very edge is not lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_resume_at_the_edge_of_the_history_misses_nothing() {
    let _trial = Trial::begin("a_resume_at_the_edge_of_the_history_misses_nothing").await;
    let mut registry = RegistryProcess::with(&["--history-len", &KEPT.to_string()]).await;
    let mut client = registry.client();
    let stays = client.register(wire::lasting([wire::instance("a-svc", "stays")])).await;
    let history = resume(&registry, 0, "", stays.expect("registers").into_inner().revision)
        .await
        .history;
    // Each instance comes and goes: every other revision is a removal, so that one of them is at the edge in one of two rounds.
    for round in 0..4 {
        let mut last = 0;
        for number in 0..KEPT {
            let id = format!("{round}-{number}");
            let lease = client.register(wire::lasting([wire::instance("a-svc", &id)])).await;
            let ended = client
                .deregister(wire::deregistration(&lease.expect("registers").into_inner()))
                .await;
            last = ended.expect("ends").into_inner().revision;
        }
        if round % 2 == 1 {
            // Moves the edge on by one.
            let odd = client
                .register(wire::lasting([wire::instance("a-svc", &format!("odd-{round}"))]))
                .await;
            last = odd.expect("registers").into_inner().revision;
        }
        if round >= 2 {
            registry.kill().await;
            registry.begin().await;
            client = registry.client();
        }
        let edge = last - i64::try_from(KEPT).expect("small");
        // On the edge: everything after it, change by change.
        for after in [edge, edge + 1, last - 1] {
            let journal = resume(&registry, after, &history, last).await;
            let told: Vec<i64> = journal
                .entries
                .iter()
                .filter_map(|entry| match entry {
                    Entry::Delta { revision, .. } => Some(*revision),
                    _ => None,
                })
                .collect();
            assert_eq!(
                told,
                (after + 1..=last).collect::<Vec<_>>(),
                "round {round}, after {after} of {last}"
            );
        }
        // Below it: all of it anew, and said so; nothing that is gone is in it.
        for after in [1, edge / 2, edge - 1] {
            let journal = resume(&registry, after, &history, last).await;
            let Entry::Snapshot {
                revision,
                cause: Cause::Compacted,
                instances,
            } = &journal.entries[1]
            else {
                panic!("round {round}, after {after} of {last}: {:?}", journal.entries);
            };
            assert_eq!(*revision, last);
            let listed = wire::list(&mut client, "a-svc").await.expect("lists").instances;
            assert_eq!(*instances, listed);
        }
        // What follows on such a snapshot is told once.
        let request = wire::WatchRequest {
            service: "a-svc".into(),
            start_after_revision: 1,
            history_id: history.clone(),
            ..Default::default()
        };
        let recorder = Recorder::start(registry.channel(), request);
        recorder.reaches(last).await;
        let next = client
            .register(wire::lasting([wire::instance("a-svc", &format!("next-{round}"))]))
            .await;
        let next = next.expect("registers").into_inner().revision;
        recorder.reaches(next).await;
        let journal = recorder.stop();
        let puts: Vec<&str> = journal
            .events()
            .map(|event| match event {
                Event::Put(instance) => instance.id.as_str(),
                Event::Removed(removal) => removal.id.as_str(),
            })
            .collect();
        assert_eq!(puts, [format!("next-{round}")], "once, and nothing else");
        // Above it: refused, and not silently held.
        let future = wire::WatchRequest {
            start_after_revision: next + 1,
            history_id: history.clone(),
            ..Default::default()
        };
        let status = client.watch(future).await.expect_err("has not happened");
        assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    }
}
