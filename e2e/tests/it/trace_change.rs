//! A change of the registry is one trace: who asks for it, the commit, the watches that are told, and each balancer that goes by it.

use e2e::{
    Cluster, ClusterOptions,
    otlp::{self, CLIENT, CONSUMER, PRODUCER, SERVER, Tree, of, tree},
    wait,
};

const REGISTRY: &str = "tessera.registry.v1.RegistryService";
const DRAIN: &str = "tessera.registry.v1.GovernanceService/Drain";

async fn cluster(receiver: &otlp::Receiver, tickets: usize) -> Cluster {
    let env = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint.clone()),
        ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
    ];
    Cluster::with(ClusterOptions {
        tickets,
        env,
        ..ClusterOptions::default()
    })
    .await
}

/// The trace that has such a span, once it has this tree.
async fn has_tree(
    receiver: &otlp::Receiver,
    root: impl Fn(&otlp::Span) -> bool,
    mut expected: Tree,
) -> Vec<otlp::Span> {
    expected.sort();
    wait::until("the whole trace", || async {
        let all = receiver.all();
        let Some(found) = all.iter().find(|span| root(span)) else {
            return Err("no such span".to_owned());
        };
        let spans = receiver.trace(&found.trace_id);
        let tree = tree(&spans);
        if tree == expected {
            Ok(spans)
        } else {
            Err(format!("{tree:#?}"))
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_one_trace_from_the_operator_to_the_last_acknowledgement() {
    let receiver = otlp::Receiver::start().await;
    let cluster = cluster(&receiver, 2).await;
    cluster
        .tessera(&["drain", "ticket-svc/ticket-1", "--why", "a disk"])
        .await
        .success();
    let ack = format!("{REGISTRY}/AckWatch");
    let attempt = format!("Attempt.{DRAIN}");
    let call = of("tessera-cli", CLIENT, DRAIN);
    let drain = of("registry-svc", SERVER, DRAIN);
    let apply = of("user-svc", CONSUMER, "apply ticket-svc");
    let spans = has_tree(
        &receiver,
        |span| span.kind == SERVER && span.name == DRAIN,
        vec![
            (call.clone(), None),
            (of("tessera-cli", CLIENT, &attempt), Some(call)),
            (drain.clone(), Some(of("tessera-cli", CLIENT, &attempt))),
            (of("registry-svc", CLIENT, "COMMIT"), Some(drain.clone())),
            (
                of("registry-svc", PRODUCER, "deliver default/ticket-svc"),
                Some(drain.clone()),
            ),
            (apply.clone(), Some(drain)),
            (of("user-svc", CLIENT, &ack), Some(apply)),
            (of("registry-svc", SERVER, &ack), Some(of("user-svc", CLIENT, &ack))),
        ],
    )
    .await;
    let revisions: Vec<&String> = spans
        .iter()
        .filter_map(|span| span.attributes.get("tessera.registry.revision"))
        .collect();
    assert_eq!(revisions.len(), 3, "commit, delivery and application are of a revision");
    assert!(
        revisions.iter().all(|revision| *revision == revisions[0]),
        "{revisions:?}"
    );
    let commit = spans.iter().find(|span| span.name == "COMMIT").expect("the commit");
    assert_eq!(commit.attributes["db.system.name"], "tessera.embedded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_is_one_trace_from_the_instance_to_whoever_may_call_it() {
    let receiver = otlp::Receiver::start().await;
    let mut cluster = cluster(&receiver, 1).await;
    cluster.start_ticket("ticket-9", "127.0.0.1:0").await;
    let register = format!("{REGISTRY}/Register");
    let (client, server) = (
        of("ticket-svc", CLIENT, &register),
        of("registry-svc", SERVER, &register),
    );
    has_tree(
        &receiver,
        |span| span.kind == CLIENT && span.name == register && span.resource["service.instance.id"] == "ticket-9",
        vec![
            (client.clone(), None),
            (server.clone(), Some(client)),
            (of("registry-svc", CLIENT, "COMMIT"), Some(server.clone())),
            (
                of("registry-svc", PRODUCER, "deliver default/ticket-svc"),
                Some(server.clone()),
            ),
            (of("user-svc", CONSUMER, "apply ticket-svc"), Some(server)),
        ],
    )
    .await;
    // What has no end has a span that has, and heartbeats have none.
    let all = receiver.all();
    let watches: Vec<_> = all
        .iter()
        .filter(|span| span.name == format!("{REGISTRY}/Watch"))
        .collect();
    assert!(!watches.is_empty(), "the watch of user-svc was opened");
    assert!(
        watches
            .iter()
            .all(|span| span.attributes["tessera.rpc.endless"] == "true"),
        "{watches:?}"
    );
    let beats = all
        .iter()
        .filter(|span| span.name.contains("Renew") || span.name.contains("KeepAlive"));
    assert_eq!(beats.count(), 0);
}
