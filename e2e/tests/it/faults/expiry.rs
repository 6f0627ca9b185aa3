//! Row 15. Most of a service falls silent in one moment: more likely the network than a thousand deaths.

use std::{collections::BTreeSet, time::Duration};

use e2e::{
    registry::{Fleet, Load, Recorder, RegistryProcess, check, wire},
    trial::Trial,
    wait,
};
use proto::registry::v1::instance_event::Event;
use wire::confidence::State;

const SILENT: usize = 1_000;
const HEALTHY: usize = 100;

/// A thousand of eleven hundred fall silent together. The healthy ones keep their leases, the registry says PROTECTING, and of
/// the silent ones no more than 15 % of the service go in a window, chosen at random; when they speak again, those who are
/// left are saved and the registry is FRESH.
#[tokio::test(flavor = "multi_thread")]
async fn a_mass_expiry_is_held_back_and_spares_the_healthy() {
    let mut trial = Trial::begin("a_mass_expiry_is_held_back_and_spares_the_healthy").await;
    let registry = RegistryProcess::start().await;
    let ttl = Duration::from_secs(3);
    let healthy = Fleet::start(&registry, "b-svc", "healthy", HEALTHY, ttl).await;
    let fleet = Fleet::start(&registry, "b-svc", "silent", SILENT, ttl).await;
    let recorder = Recorder::start(
        registry.channel(),
        wire::WatchRequest {
            service: "b-svc".into(),
            ..Default::default()
        },
    );
    recorder.reaches(1).await;
    let load = Load::whatever_happens(&registry, Load::books("a-svc", 4, &mut trial.rng));
    load.flows(50).await;
    fleet.beats(2).await;

    let silent: BTreeSet<String> = fleet.silence(SILENT).into_iter().collect();
    recorder
        .shows("PROTECTING", |journal| journal.confidence == State::Protecting)
        .await;
    // A fifth of a window of 60 s: its part of the budget of 165 is some 33.
    healthy.beats(20).await;
    load.flows(50).await;
    let expired: Vec<String> = recorder.look(|journal| {
        let expired = journal.removed(wire::RemovalReason::Expired);
        expired.into_iter().map(str::to_owned).collect()
    });
    assert!(
        expired.iter().all(|id| silent.contains(id)),
        "only silent ones: {expired:?}"
    );
    let budget = (SILENT + HEALTHY) * 15 / 100;
    assert!(expired.len() > 5, "the dead do go: {}", expired.len());
    assert!(
        expired.len() <= budget,
        "{} of {budget} for a whole window",
        expired.len()
    );
    let numbers: Vec<usize> = expired
        .iter()
        .filter_map(|id| id.strip_prefix("silent-")?.parse().ok())
        .collect();
    assert!(!numbers.is_sorted(), "chosen at random: {numbers:?}");
    assert_eq!(healthy.lost(), [""; 0], "the healthy are spared");

    fleet.wake();
    recorder
        .shows("FRESH", |journal| journal.confidence == State::Fresh)
        .await;
    fleet.beats(2).await;
    let gone: BTreeSet<String> = fleet.lost().into_iter().collect();
    let expired: BTreeSet<String> = recorder.look(|journal| {
        let expired = journal.removed(wire::RemovalReason::Expired);
        expired.into_iter().map(str::to_owned).collect()
    });
    assert_eq!(
        gone, expired,
        "told to register again: those who were let go, nobody else"
    );
    let listed = wire::list(&mut registry.client(), "b-svc").await.expect("lists");
    assert_eq!(listed.instances.len(), SILENT + HEALTHY - expired.len());
    check(&registry, &mut load.stop().await).await.expect("lists");
}

/// Those who never speak again are gone in bounded time all the same, and before that no faster than 15 % of the service in a
/// window: a thing that protects for ever would keep a dead service alive.
#[tokio::test(flavor = "multi_thread")]
async fn the_truly_dead_are_gone_in_bounded_time() {
    const SILENT: usize = 300;
    const HEALTHY: usize = 30;
    const WINDOW: Duration = Duration::from_secs(2);
    const MAX: Duration = Duration::from_secs(8);
    let mut trial = Trial::begin("the_truly_dead_are_gone_in_bounded_time").await;
    let flags = ["--protection-window", "2s", "--protection-max", "8s"];
    let registry = RegistryProcess::with(&flags).await;
    let ttl = Duration::from_secs(2);
    let healthy = Fleet::start(&registry, "b-svc", "healthy", HEALTHY, ttl).await;
    let fleet = Fleet::start(&registry, "b-svc", "silent", SILENT, ttl).await;
    let recorder = Recorder::start(registry.channel(), wire::WatchRequest::default());
    let load = Load::whatever_happens(&registry, Load::books("a-svc", 4, &mut trial.rng));
    load.flows(50).await;
    fleet.beats(2).await;

    fleet.silence(SILENT);
    recorder
        .shows("the dead to be gone", |journal| {
            journal.removed(wire::RemovalReason::Expired).len() == SILENT
        })
        .await;
    wait::until("FRESH", || async {
        let listed = registry
            .client()
            .list_instances(wire::ListInstancesRequest::default())
            .await;
        let confidence = listed.expect("lists").into_inner().confidence.unwrap_or_default();
        match confidence.state() {
            State::Fresh => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    healthy.beats(10).await;
    load.flows(50).await;
    assert_eq!(healthy.lost(), [""; 0], "the healthy are spared");
    let journal = recorder.stop();
    assert_eq!(
        journal.removed(wire::RemovalReason::Expired).len(),
        SILENT,
        "and nobody else"
    );

    // By the registry's clock, so that a busy machine changes nothing.
    let mut times: Vec<Duration> = journal
        .events()
        .filter_map(|event| match event {
            Event::Removed(removal) if removal.service == "b-svc" => removal.removed_at,
            _ => None,
        })
        .map(|at| Duration::new(at.seconds.unsigned_abs(), at.nanos.unsigned_abs()))
        .collect();
    times.sort_unstable();
    let first = times[0];
    // The owners fell silent within one round of heartbeats, so their longest time ends no earlier than this after the first.
    let held = MAX - ttl / 5 - Duration::from_millis(500);
    let trickled = times.iter().filter(|time| **time - first < held).count();
    let windows = held.as_millis().div_ceil(WINDOW.as_millis()) + 1;
    let budget = (SILENT + HEALTHY) * 15 / 100 * usize::try_from(windows).expect("few");
    println!(
        "{trickled} in the first {held:?}, all {SILENT} in {:?}",
        times[times.len() - 1] - first
    );
    assert!(trickled <= budget, "{trickled} of {budget} in {windows} windows");
    assert!(trickled < SILENT * 9 / 10, "most were held back: {trickled}");
    check(&registry, &mut load.stop().await).await.expect("lists");
}
