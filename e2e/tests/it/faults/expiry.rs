//! Row 15. Most of a service falls silent in one moment: more likely the network than a thousand deaths.

use std::{collections::BTreeSet, time::Duration};

use e2e::{
    registry::{Fleet, Load, Recorder, RegistryProcess, check, wire},
    trial::Trial,
};
use wire::confidence::State;

const SILENT: usize = 1_000;
const HEALTHY: usize = 100;

/// A thousand of eleven hundred fall silent together. The healthy ones keep their leases, the registry says PROTECTING, and of
/// the silent ones no more than 15 % of the service go in a window, chosen at random; when they speak again, those who are
/// left are saved and the registry is FRESH. That the truly dead are gone in bounded time takes a quarter of an hour and is
/// shown on the catalog alone, where time is an argument.
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
