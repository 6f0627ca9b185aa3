//! More is asked than can be answered, by one who does not care.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use e2e::{
    registry::{Fleet, RegistryProcess, wire},
    trial::Trial,
    wait,
};
use tonic::{Code, transport::Endpoint};
use tonic_types::StatusExt as _;

/// What a flood was told.
#[derive(Debug, Default)]
struct Told {
    answered: AtomicU64,
    shed: AtomicU64,
}

/// Lists that look at everything and find nothing, from an address of their own, as many at once as streams are allowed on so
/// many connections.
fn flood(registry: &RegistryProcess, connections: usize) -> (Arc<Told>, tokio::task::JoinSet<()>, Arc<AtomicBool>) {
    let (told, stop) = (Arc::new(Told::default()), Arc::new(AtomicBool::new(false)));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..connections {
        let channel = Endpoint::from_shared(format!("http://{}", registry.address()))
            .expect("an address")
            .local_address(Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2))))
            .connect_lazy();
        for _ in 0..100 {
            let (mut client, told, stop) = (wire::Client::new(channel.clone()), told.clone(), stop.clone());
            tasks.spawn(async move {
                let nothing = wire::ListInstancesRequest {
                    selector: Some(wire::Selector {
                        zone: "nowhere".into(),
                        ..Default::default()
                    }),
                    ..Default::default()
                };
                while !stop.load(Ordering::Relaxed) {
                    match client.list_instances(nothing.clone()).await {
                        Ok(_) => drop(told.answered.fetch_add(1, Ordering::Relaxed)),
                        Err(status) => {
                            assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
                            let details = status.get_error_details();
                            assert_eq!(details.error_info().expect("says why").reason, "PEER_BUSY");
                            assert!(details.retry_info().is_some(), "{status:?}");
                            told.shed.fetch_add(1, Ordering::Relaxed);
                            // Sooner than it was told to: this one does not care. But the test needs some of the processor too.
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    }
                }
            });
        }
    }
    (told, tasks, stop)
}

/// Row 29. One address floods the registry with lists. It is told to send less; heartbeats, registrations and the lists of
/// others go on, and nobody lapses.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_lists_stands_in_nobodys_way() {
    let trial = Trial::begin("a_flood_of_lists_stands_in_nobodys_way").await;
    let registry = RegistryProcess::start().await;
    let mut client = registry.client();
    for lease in 0..trial.times(60) {
        let many = (0..64).map(|number| wire::instance("bulk", &format!("{lease}-{number}")));
        client.register(wire::lasting(many)).await.expect("registers");
    }
    let fleet = Fleet::start(&registry, "s", "owner", 50, Duration::from_secs(3)).await;
    fleet.beats(1).await;

    let (told, mut tasks, stop) = flood(&registry, 6);
    wait::until("the flood to be shed", || async {
        match told.shed.load(Ordering::Relaxed) {
            0 => Err("nobody was told to send less".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    for number in 0..20 {
        let one = wire::lasting([wire::instance("others", &format!("i{number}"))]);
        client.register(one).await.expect("others register");
        let all = wire::ListInstancesRequest {
            service: "others".into(),
            ..Default::default()
        };
        let listed = client.list_instances(all).await.expect("others list").into_inner();
        assert_eq!(listed.instances.len(), number + 1);
    }
    fleet.beats(5).await;
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended.expect("the flood was answered as it should");
    }
    println!("{told:?}");
    assert!(told.answered.load(Ordering::Relaxed) > 0, "it has its share");
    assert_eq!(fleet.lost(), [""; 0], "nobody lapsed");
}
