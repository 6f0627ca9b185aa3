//! Asks instances how they are, for Prequal: beside the calls, never in front of one.
//!
//! A probe is a health check that asks for a load report, on the connection that calls use. It goes to instances at random, in
//! proportion to weight, of those that calls without a route may go to: reports that come with the responses of calls are of those that were chosen, and would go on praising
//! them. An instance that answers without a report is judged by what is seen of it from here.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, header};
use rand::Rng;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{Pool, ReadySet};
use crate::{
    Policy,
    call::{Head, RequestBody},
    endpoint::{
        Endpoint,
        connection::{Connection, Slot},
    },
    load::Report,
    pick::Weights,
};

/// Between two rounds of probes. With [`A_ROUND`] it bounds them, whatever the number of calls: to a thousand in a second.
const PACE: Duration = Duration::from_millis(2);
const A_ROUND: usize = 2;

/// Later its answer would be no news. (The paper has 3 ms, for servers that answer probes ahead of everything else.)
const TIMEOUT: Duration = Duration::from_millis(250);

/// An instance that does not answer holds probes for their timeout; more than these are never under way.
const MOST: usize = 64;

/// Probes for as long as it is polled, and only while there are calls and the policy asks for it. Never resolves.
pub(super) async fn probe(pool: &Pool, mut rng: impl Rng) {
    // Dropped, and the probes with it, when this is.
    let mut under_way = JoinSet::new();
    loop {
        let changed = pool.changed.notified();
        tokio::pin!(changed);
        // Listening before looking: another policy is not missed.
        changed.as_mut().enable();
        let (ready, probes) = (pool.ready.load_full(), pool.fleet.probes());
        let (Policy::Prequal(settings), Some(probes)) = (ready.policy(), probes) else {
            changed.await;
            continue;
        };
        let calls = tokio::select! {
            calls = probes.demanded() => calls,
            () = changed => continue,
        };
        while under_way.try_join_next().is_some() {}
        let now = pool.fleet.tick(Instant::now());
        let wanted = if probes.has_choice(now) {
            settings.probes(calls, rng.next_u32()).min(A_ROUND)
        } else {
            // The first calls are placed at random: the sooner there is a choice, the better.
            probes.capacity()
        };
        let room = MOST.saturating_sub(under_way.len());
        for (endpoint, slot) in targets(&ready.view(None), wanted.min(room), &mut rng) {
            under_way.spawn(async move {
                let asked = Instant::now();
                if let Ok(Some(trailers)) = timeout(TIMEOUT, ask(&endpoint, slot)).await {
                    endpoint.load().was_probed(&trailers, endpoint.in_flight(), asked);
                }
            });
        }
        sleep(PACE).await;
    }
}

/// Some of the instances, none twice, with room for a stream.
fn targets(ready: &ReadySet, count: usize, rng: &mut impl Rng) -> Vec<(Arc<Endpoint>, Slot)> {
    let members = ready.members();
    let mut drawn = Vec::with_capacity(count);
    // A few draws more than needed, since some are of the same ones.
    for _ in 0..count * 2 {
        let index = match ready.weights() {
            _ if members.is_empty() || drawn.len() == count => break,
            Weights::Equal => (rng.next_u64() % members.len() as u64) as usize,
            Weights::Mixed(weights) => weights.owner(rng.next_u64()),
        };
        if !drawn.contains(&index) {
            drawn.push(index);
        }
    }
    let with_room = |index: usize| {
        let member = &members[index];
        let slot = member.connection().try_room().ok().flatten()?;
        Some((Arc::clone(&member.endpoint), slot))
    };
    drawn.into_iter().filter_map(with_room).collect()
}

/// The trailers of the answer, whatever it is.
async fn ask(endpoint: &Endpoint, slot: Slot) -> Option<HeaderMap> {
    let mut head = Request::builder()
        .method(Method::POST)
        .uri("/grpc.health.v1.Health/Check")
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(())
        .ok()?;
    Report::ask(head.headers_mut());
    let head = Head::new(head.into_parts().0);
    // An empty message: the server as a whole.
    let body = RequestBody::Whole(Some(Bytes::from_static(&[0; 5])));
    let addressed = || head.addressed_to(endpoint.scheme(), &endpoint.authority);
    let exchange = Connection::send(slot, addressed, &body).ok()?;
    let (head, mut incoming) = exchange.await.ok()?.into_parts();
    if incoming.is_end_stream() {
        return Some(head.headers);
    }
    loop {
        let frame = std::future::poll_fn(|cx| incoming.poll_frame(cx)).await?.ok()?;
        if let Ok(trailers) = frame.into_trailers() {
            return Some(trailers);
        }
    }
}
