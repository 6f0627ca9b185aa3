//! The states of an order as a stream: the present one at once, each change, and the end after the final one.
//!
//! Level-triggered: a signal only says that it is time to look, and the store says what there is to see. A slow reader misses
//! states in between, never the last one, and nothing is queued for it.

use std::time::Duration;

use futures_util::{Stream, stream};
use identity::Caller;
use proto::user::v1::WatchOrderResponse;
use service_host::DrainSignal;
use tonic::Status;
use uuid::Uuid;

use super::{convert, gate};
use crate::{
    domain::order::Order,
    error,
    purchases::{Following, Purchases},
    store::Store,
};

/// How long between two looks without a signal, at the most: for orders that another process drives, or that wait for one.
const LOOK: Duration = Duration::from_secs(1);

/// And at the least, right after a change: most purchases take less than a second.
const FIRST_LOOK: Duration = Duration::from_millis(50);

struct Watch {
    store: Store,
    purchases: Purchases,
    drain: DrainSignal,
    caller: Caller,
    order_id: Uuid,
    /// The version sent last.
    sent: Option<i64>,
    ended: bool,
}

/// The stream of a WatchOrder call. Ends with UNAVAILABLE when the instance drains before the order is final: an end
/// without it would mean that there is nothing more to come.
pub(super) fn states(
    store: Store,
    purchases: Purchases,
    drain: DrainSignal,
    caller: Caller,
    order_id: Uuid,
) -> impl Stream<Item = Result<WatchOrderResponse, Status>> + Send + 'static {
    let watch = Watch {
        store,
        purchases,
        drain,
        caller,
        order_id,
        sent: None,
        ended: false,
    };
    stream::unfold(watch, |mut watch| async move {
        if watch.ended {
            return None;
        }
        let item = watch.next().await;
        watch.ended = item.as_ref().map_or(true, Order::is_final);
        let item = item.map(|order| WatchOrderResponse {
            order: Some(convert::order(order)),
        });
        Some((item, watch))
    })
}

impl Watch {
    /// The next state that was not sent.
    async fn next(&mut self) -> Result<Order, Status> {
        let mut look = FIRST_LOOK;
        loop {
            let mut following = self.purchases.follow(self.order_id);
            if let Some(following) = &mut following {
                following.seen();
            }
            let order = self.store.order(self.order_id).await?;
            if self.sent != Some(order.version) {
                self.sent = Some(order.version);
                return Ok(order);
            }
            tokio::select! {
                () = self.drain.wait() => return Err(error::draining()),
                () = changed(following) => {}
                () = tokio::time::sleep(look) => look = (look * 2).min(LOOK),
            }
            // A stream outlives what it was opened with: its token ends, and so may its session.
            gate::check(&self.store, &self.caller).await?;
        }
    }
}

async fn changed(following: Option<Following>) {
    match following {
        Some(mut following) => {
            following.changed().await;
        }
        None => std::future::pending().await,
    }
}
