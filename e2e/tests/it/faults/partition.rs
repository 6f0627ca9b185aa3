//! Row 19. The network fails between providers and the registry, and nowhere else: callers go on calling.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use e2e::{
    Process,
    network::Branch,
    registry::{Load, RegistryProcess, check, wire},
    trial::{Need, Trial},
    wait,
};
use proto::ticket::v1::{ListEventsRequest, ticket_service_client::TicketServiceClient};
use registry_client::Registry;

/// All three providers of a service are cut off from the registry for several times to live, while callers reach both. The
/// registry holds back what would take the service away, and no call fails. When the network is whole again, all three are
/// registered.
#[tokio::test(flavor = "multi_thread")]
async fn providers_cut_off_from_the_registry_are_called_all_the_same() {
    let name = "providers_cut_off_from_the_registry_are_called_all_the_same";
    let needs = [Need::Root, Need::Tool("ip"), Need::Tool("iptables")];
    let Some(mut trial) = Trial::with(name, &needs).await else {
        return;
    };
    let branch = Branch::build();
    let folder = tempfile::tempdir().expect("a folder");
    let registry = RegistryProcess::at(branch.ours(), &folder.path().join("registry"), &["--insecure"]).await;
    let (_, port) = registry.address().rsplit_once(':').expect("host and port");
    let store = folder.path().join("tickets.db").display().to_string();
    let listen = format!("{}:0", branch.theirs());
    let mut providers = Vec::new();
    for number in 0..3 {
        let id = format!("ticket-{number}");
        let flags = [
            // Of a network that nobody else is in.
            "--insecure",
            "--heartbeat-interval",
            "300ms",
            "--heartbeat-misses",
            "5",
            "--instance-id",
            &id,
        ];
        let args = [
            "ticket",
            "--seed",
            "--listen",
            &listen,
            "--admin-listen",
            "127.0.0.1:0",
            "--registry",
        ];
        let args = args
            .into_iter()
            .chain([registry.address(), "--store", &store])
            .chain(flags);
        let mut provider = Process::spawn_in(branch.name(), &id, args, &[]);
        provider.addresses().await;
        providers.push(provider);
    }
    let load = Load::whatever_happens(&registry, Load::books("a-svc", 2, &mut trial.rng));
    let channel = lb::Channel::builder(
        Registry::connect([registry.address()])
            .expect("an address")
            .discover("ticket-svc"),
    );
    let callers = Callers::start(channel.build());
    callers.flows(50).await;

    branch.cut(port);
    let mut client = registry.client();
    wait::until("the registry to hold back the rest", || async {
        let request = wire::ListInstancesRequest {
            service: "ticket-svc".into(),
            ..Default::default()
        };
        let listed = client
            .clone()
            .list_instances(request)
            .await
            .expect("lists")
            .into_inner();
        match listed.confidence.unwrap_or_default().state() {
            wire::confidence::State::Protecting if !listed.instances.is_empty() => Ok(()),
            _ => Err(format!("{listed:?}")),
        }
    })
    .await;
    // The fault goes on for three times to live, with calls all the while.
    tokio::time::sleep(Duration::from_millis(4_500)).await;
    callers.flows(200).await;
    load.flows(50).await;
    let listed = wire::list(&mut client, "ticket-svc").await.expect("lists");
    assert!(!listed.instances.is_empty(), "the service was not taken away");

    branch.heal(port);
    wait::until("all providers to return", || async {
        match wire::list(&mut client.clone(), "ticket-svc").await {
            Ok(listed) if listed.instances.len() == 3 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    callers.flows(50).await;
    assert_eq!(callers.failed(), 0, "no call failed");
    check(&registry, &mut load.stop().await).await.expect("lists");
    for provider in providers {
        provider.stop().await.success();
    }
}

/// Calls, one after the other, until dropped.
#[derive(Debug)]
struct Callers {
    done: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Callers {
    fn start(channel: lb::Channel) -> Self {
        let (done, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let counts = (Arc::clone(&done), Arc::clone(&failed));
        let task = tokio::spawn(async move {
            let mut client = TicketServiceClient::new(channel);
            loop {
                match client.list_events(ListEventsRequest::default()).await {
                    Ok(_) => counts.0.fetch_add(1, Ordering::Relaxed),
                    Err(status) => {
                        eprintln!("a call failed: {status:?}");
                        counts.1.fetch_add(1, Ordering::Relaxed)
                    }
                };
                // A rate, so that the callers do not starve what they call.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Self { done, failed, task }
    }

    fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    async fn flows(&self, more: u64) {
        let goal = self.done.load(Ordering::Relaxed) + more;
        wait::until("calls", || async {
            match self.done.load(Ordering::Relaxed) {
                done if done >= goal => Ok(()),
                done => Err(format!("{done} of {goal}, {} failed", self.failed())),
            }
        })
        .await;
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        self.task.abort();
    }
}
