//! A purchase that outlives its process is two traces: the one that it was asked for in, and that of its recovery, which points
//! back to it.

use e2e::{
    Cluster, ClusterOptions,
    market::{Market, Wish},
    otlp::{self, SERVER},
    wait,
};
use proto::user::v1::OrderState;

const HOLD: &str = "tessera.ticket.v1.TicketService/HoldSeats";
const CONFIRM: &str = "tessera.ticket.v1.TicketService/ConfirmHold";

/// user-svc dies when it has the money and is about to confirm. The next one confirms in a trace of its own, with one link to
/// the span under which the purchase began.
#[tokio::test(flavor = "multi_thread")]
async fn a_recovered_purchase_is_linked_to_the_trace_that_it_was_asked_for_in() {
    let receiver = otlp::Receiver::start().await;
    let mut cluster = Cluster::with(ClusterOptions {
        tickets: 1,
        env: vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint.clone()),
            ("OTEL_BSP_SCHEDULE_DELAY", "10".to_owned()),
        ],
        user_flags: ["--purchase-lease", "500ms"].map(String::from).to_vec(),
        ..ClusterOptions::default()
    })
    .await;
    let market = Market::of(&cluster);
    let event = market.event(1, 1).await;
    let buyer = market.buyer(1).await;
    cluster.kill("user-1").await;
    let dies = ("TESSERA_FAIL_AT", "user.confirm.call.before".to_owned());
    cluster.start_doomed_user("user-1", &[dies]).await;
    let buying = tokio::spawn({
        let (market, event, buyer) = (market.clone(), event.clone(), buyer.clone());
        async move { market.buy(&buyer, &event, Wish::Best(1)).await }
    });
    let died = cluster.ended("user-1").await;
    assert!(
        died.stderr.contains("fail point user.confirm.call.before: aborts"),
        "{}",
        died.stderr
    );
    // The buyer is gone too: asking again would take the purchase up, in the trace of that call.
    buying.abort();
    cluster.start_user().await;

    let (recovery, hold, confirmation) = wait::until("the recovery and the calls of both traces", || async {
        let spans = receiver.all();
        let named = |name: &str| {
            spans
                .iter()
                .find(|span| span.name == name && span.kind == SERVER)
                .cloned()
        };
        let recovery = spans.iter().find(|span| span.name == "recover purchase").cloned();
        match (recovery, named(HOLD), named(CONFIRM)) {
            (Some(recovery), Some(hold), Some(confirmation)) => Ok((recovery, hold, confirmation)),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let [(trace, span)] = recovery.links.as_slice() else {
        panic!("one link: {recovery:?}");
    };
    assert_eq!(trace, &hold.trace_id, "to the trace in which the seats were held");
    assert_ne!(span, &"0".repeat(16), "to a span of it");
    assert_eq!(&recovery.attributes["tessera.order.trace_id"], trace);
    assert_ne!(&recovery.trace_id, trace, "nobody waits in that one any more");
    assert_eq!(recovery.parent_id, "");
    assert_eq!(recovery.resource["service.name"], "user-svc");
    assert_eq!(
        confirmation.trace_id, recovery.trace_id,
        "it was confirmed in the recovery's"
    );
    let order = market.order(&recovery.attributes["tessera.order.id"]).await;
    assert_eq!(
        (order.state(), order.user_id),
        (OrderState::Succeeded, buyer.id),
        "and sold"
    );
}
