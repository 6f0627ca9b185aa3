//! How long a drain waits, and what it claims.

use registry_client::Late;

use super::*;

/// A watcher that is stopped, or never acknowledges, holds a drain up for as long as the owner wants, and is named.
#[tokio::test(start_paused = true)]
async fn a_drain_that_is_not_acknowledged_ends_with_its_patience() {
    let fake = Fake::start().await;
    fake.serve_late(&["w"]);
    let registrar = registered(&to(&[fake.url()])).await;
    let begin = Instant::now();
    let late = Late {
        watches: vec!["w".into()],
        ..Late::default()
    };
    assert_eq!(registrar.drain(Duration::from_secs(3)).await, Drained::Late(late));
    let took = begin.elapsed();
    assert!(
        (Duration::from_secs(3)..Duration::from_millis(3_700)).contains(&took),
        "{took:?}"
    );
}

/// A replica knows its own watches. Asked alone it said that all had acknowledged, while callers that watched another one went on.
#[tokio::test(start_paused = true)]
async fn every_replica_is_asked_and_those_that_are_not_known_are_named() {
    let one = Fake::start().await;
    let two = one.replica().await;
    one.serve_replica("one", &["two", "three"]);
    two.serve_replica("two", &["one", "three"]);
    let registrar = registered(&to(&[one.url(), two.url()])).await;
    let late = |watches: &[&str], replicas: &[&str]| {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Drained::Late(Late {
            watches: owned(watches),
            replicas: owned(replicas),
        })
    };
    assert_eq!(registrar.drain(Duration::from_secs(8)).await, late(&[], &["three"]));
    two.serve_late(&["w"]);
    assert_eq!(registrar.drain(Duration::from_secs(8)).await, late(&["w"], &["three"]));
    for (fake, name, other) in [(&one, "one", "two"), (&two, "two", "one")] {
        fake.serve_late(&[]);
        fake.serve_replica(name, &[other]);
    }
    assert_eq!(registrar.drain(Duration::from_secs(8)).await, Drained::Acknowledged);
}

/// A replica that had lost its store was not counted by the others any more, and could not tell of its watches: its answer was
/// dropped as soon as another one had answered, and the drain called acknowledged, while its watchers knew nothing.
#[tokio::test(start_paused = true)]
async fn a_replica_that_answers_with_an_error_is_named() {
    let refusals = [
        refusal(Code::OutOfRange, "REVISION_IN_FUTURE", None),
        refusal(Code::Unavailable, "DRAINING", None),
        Status::deadline_exceeded("too slow"),
        Status::unimplemented("a method of later"),
    ];
    for refusal in refusals {
        let one = Fake::start().await;
        let two = one.replica().await;
        // It does not count the other one any more.
        one.serve_replica("one", &[]);
        two.refuse(Some(refusal));
        let registrar = registered(&to(&[one.url(), two.url()])).await;
        let Drained::Late(late) = registrar.drain(Duration::from_secs(8)).await else {
            panic!("nobody knows of its watchers")
        };
        assert_eq!((late.watches, late.replicas), (vec![], vec![two.url()]));
    }
}

/// A registry that had come back a second ago had nobody on its list, and so everybody on it had acknowledged: the instance
/// stopped at once, and all its callers were on their way back to the registry, with the old set.
#[tokio::test(start_paused = true)]
async fn a_registry_that_has_just_been_restarted_is_not_believed_that_all_know() {
    let fake = Fake::start().await;
    fake.serve_restarted(true);
    let registrar = registered(&to(&[fake.url()])).await;
    let begin = Instant::now();
    assert_eq!(registrar.drain(Duration::from_secs(5)).await, Drained::Unheard);
    assert!(begin.elapsed() >= Duration::from_millis(300), "{:?}", begin.elapsed());
    // Who is there and late is late.
    fake.serve_late(&["w"]);
    let Drained::Late(late) = registrar.drain(Duration::from_secs(5)).await else {
        panic!("one is late")
    };
    assert_eq!((late.watches, late.replicas), (vec!["w".into()], vec![fake.url()]));
    // One that knows does not speak for the other one.
    fake.serve_late(&[]);
    let other = fake.replica().await;
    let registrar = registered(&to(&[other.url(), fake.url()])).await;
    let Drained::Late(late) = registrar.drain(Duration::from_secs(5)).await else {
        panic!("one does not know")
    };
    assert_eq!((late.watches, late.replicas), (vec![], vec![fake.url()]));
}

/// A registry of an earlier version knows nothing of acknowledgements: the instance goes on for a moment, as it always did.
#[tokio::test(start_paused = true)]
async fn a_registry_that_cannot_tell_is_not_waited_for() {
    let fake = Fake::start().await;
    let registrar = registered(&to(&[fake.url()])).await;
    registrar.set_status(InstanceStatus::Draining);
    until(&registrar, "DRAINING", |status| {
        matches!(status, RegistrarStatus::Draining { .. })
    })
    .await;
    fake.script([Fate::Refuse(Status::unimplemented("a method of later"))]);
    let begin = Instant::now();
    assert_eq!(registrar.drain(Duration::from_secs(5)).await, Drained::Unheard);
    let took = begin.elapsed();
    assert!(
        (Duration::from_millis(300)..Duration::from_millis(400)).contains(&took),
        "{took:?}"
    );
}
