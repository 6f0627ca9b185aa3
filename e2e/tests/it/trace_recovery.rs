//! A purchase whose user service is killed goes on when it is started again: in a trace of its own, since nobody waits for that
//! request any more, with a link to the one it began in.

use e2e::{Cluster, ClusterOptions, otlp, wait};

const CONFIRM: &str = "tessera.ticket.v1.TicketService/ConfirmHold";
const HOLD: &str = "tessera.ticket.v1.TicketService/HoldSeats";
const SERVER: i32 = 2;

/// The order's stored parent was empty with `OTEL_PROPAGATORS=b3`: it was read from a header that b3 does not write.
#[tokio::test(flavor = "multi_thread")]
async fn a_recovered_purchase_links_to_the_trace_it_began_in() {
    let receiver = otlp::Receiver::start().await;
    let env = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint.clone()),
        ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
        ("OTEL_PROPAGATORS", "b3".to_owned()),
    ];
    let mut cluster = Cluster::with(ClusterOptions {
        tickets: 1,
        env,
        ..ClusterOptions::default()
    })
    .await;
    cluster.kill("user-1").await;
    // Seats are held and paid for, and nobody has asked for the tickets yet.
    let dies = ("TESSERA_FAIL_AT", "user.confirm.call.before".to_owned());
    cluster.start_user_as("user-1", "127.0.0.1:0", &[dies]).await;
    let demo = cluster.command(&["demo", "--output", "json"]);
    let died = cluster.ended("user-1").await;
    assert!(died.stderr.contains("fail point user.confirm.call.before: aborts"), "{}", died.stderr);
    cluster.start_user().await;

    let recovery = wait::until("the recovery's span", || async {
        let spans = receiver.all();
        let found = spans.into_iter().find(|span| span.name == "recover purchase");
        found.ok_or_else(|| "none yet".to_owned())
    })
    .await;
    assert_eq!(recovery.resource["service.name"], "user-svc");
    let [(trace, _)] = recovery.links.as_slice() else {
        panic!("one link: {recovery:?}")
    };
    assert_ne!(*trace, recovery.trace_id, "no longer the same request");
    assert_eq!(recovery.attributes["tessera.order.trace_id"], *trace);
    let has = |trace: String, name: &'static str| {
        let receiver = &receiver;
        wait::until(name, move || {
            let spans = receiver.trace(&trace);
            let found = spans.iter().any(|span| span.kind == SERVER && span.name == name);
            let names: Vec<String> = spans.into_iter().map(|span| span.name).collect();
            async move { if found { Ok(()) } else { Err(format!("{names:?}")) } }
        })
    };
    has(trace.clone(), HOLD).await;
    has(recovery.trace_id.clone(), CONFIRM).await;
    // However it was answered: the command line has its own patience.
    demo.end().await;
}
