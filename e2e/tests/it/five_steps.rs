//! The five steps of docs/observability.md, by which somebody finds the cause of a slow purchase in Jaeger: whatever they name is in
//! the spans that a collector is sent, at the place where the document says so. There is no Jaeger here; it shows what it is sent.

use std::path::Path;

use e2e::{
    otlp::{self, CLIENT, SERVER, Span},
    wait,
};

use super::trace_failover::killed_with_a_call_in_its_hands;

const BUY: &str = "tessera.user.v1.UserService/BuyTicket";

/// What stands between the headings, and the words in backticks there.
fn steps() -> (String, Vec<String>) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/observability.md");
    let text = std::fs::read_to_string(file).expect("the document");
    let (_, rest) = text.split_once("in five steps\n").expect("the heading");
    let (steps, _) = rest.split_once("\n## ").expect("the next one");
    // Of pairs of backticks: every second piece.
    let named = steps.split('`').skip(1).step_by(2);
    let named = named.map(|word| word.split_whitespace().collect::<Vec<_>>().join(" "));
    (steps.to_owned(), named.collect())
}

#[test]
fn there_are_five_of_them() {
    let (steps, named) = steps();
    let numbers: Vec<&str> = steps.lines().filter_map(|line| line.get(..2)).collect();
    let numbered = numbers.into_iter().filter(|start| start.ends_with('.')).count();
    assert_eq!(numbered, 5, "{steps}");
    assert!(named.len() > 10, "{named:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_five_steps_name_is_what_a_collector_is_sent() {
    let receiver = otlp::Receiver::start().await;
    let (cluster, lost) = killed_with_a_call_in_its_hands(&receiver).await;
    let demo = cluster.tessera(&["demo", "--output", "json"]).await.success().json();
    let order = &demo["orders"][0];
    let trace_id = order["trace_id"].as_str().expect("step 1: an id of each purchase");
    wait::until("the purchase", || async {
        let spans = receiver.trace(trace_id);
        match spans.iter().any(|span| span.kind == SERVER && span.name == BUY) {
            true => Ok(()),
            false => Err(format!("{} spans", spans.len())),
        }
    })
    .await;
    let all = receiver.all();
    let of_lost: Vec<&Span> = all.iter().filter(|span| span.trace_id == lost.trace_id).collect();
    let second = of_lost
        .iter()
        .find(|span| span.parent_id == lost.parent_id && span.span_id != lost.span_id)
        .expect("the attempt beside the lost one");
    let call = of_lost
        .iter()
        .find(|span| span.span_id == lost.parent_id)
        .expect("its call");
    let is_store = |name: &str| {
        let of_store = all.iter().filter(|span| span.name == name && span.kind == CLIENT);
        // A bar within the server span of the service that waited, and the event on it that says for whom.
        of_store
            .into_iter()
            .any(|span| span.attributes.contains_key("db.system.name") && !span.parent_id.is_empty())
    };
    let has_deadline = |span: &&Span| span.attributes.contains_key("tessera.deadline.left_ms");

    for named in steps().1 {
        let is_so = match named.as_str() {
            // Step 1 and what is typed into Jaeger's page.
            "docker compose up" | "tessera demo" | "500ms" => true,
            "http://localhost:16686/trace/ID" => order["trace_url"] == named.replace("ID", trace_id).as_str(),
            "user-svc" => all
                .iter()
                .any(|span| span.resource["service.name"] == named && span.name == BUY),
            BUY => all.iter().any(|span| span.kind == SERVER && span.name == named),
            "Attempt." => lost.name.starts_with(&named) && second.name == lost.name,
            "tessera.peer.instance_id" => {
                lost.attributes[&named] == "ticket-1" && second.attributes[&named] == "ticket-2"
            }
            "tessera.attempt.kind" => second.attributes[&named] == "retry",
            // Jaeger shows events as the logs of a span.
            "lb.pick" => call.events.iter().any(|(name, about)| {
                *name == named && about["tessera.attempt"] == "2" && about["tessera.lb.chosen"] == "ticket-2"
            }),
            "BEGIN IMMEDIATE" | "COMMIT" => is_store(&named),
            "tessera.deadline.left_ms" => {
                let servers = of_lost.iter().filter(|span| span.kind == SERVER).copied();
                servers.clone().count() > 0 && servers.clone().all(|span| has_deadline(&span))
            }
            "trace_id" => {
                let logs: Vec<String> = cluster.processes().map(|(_, process)| process.stderr()).collect();
                let field = format!("\"{named}\":\"");
                let ids = logs
                    .iter()
                    .flat_map(|log| log.split(&field).skip(1))
                    .map(|rest| &rest[..32]);
                ids.into_iter().any(|id| all.iter().any(|span| span.trace_id == id))
            }
            _ => panic!("the steps name {named:?}, and nobody has said here what that is"),
        };
        assert!(is_so, "{named:?} is not what the steps say");
    }
}
