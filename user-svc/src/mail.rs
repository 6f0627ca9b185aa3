//! The example's consumer: tells buyers by mail how their orders ended. It writes to a log instead of sending: a row and a line
//! each, with the ids of order and user and nothing else of theirs.
//!
//! Idempotent: the event is taken into the inbox in the transaction of the row, so a second delivery writes neither. The line
//! comes after the commit, and is for people: what was sent is what the table says.

use futures_util::future::BoxFuture;
use outbox::{NotDelivered, Recorded, Subscriber};
use uuid::Uuid;

use crate::{events, store::Store};

/// Takes in how orders ended.
#[derive(Debug)]
pub(crate) struct Mail {
    store: Store,
}

/// One mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Letter {
    /// The event that it tells of.
    pub(crate) event_id: Uuid,
    pub(crate) kind: String,
    pub(crate) order_id: Uuid,
    pub(crate) user_id: Uuid,
}

impl Mail {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }

    async fn send(&self, events: &[Recorded]) -> Result<(), NotDelivered> {
        let letters: Option<Vec<Letter>> = events.iter().map(letter).collect();
        // As often as it comes: somebody has to look, so it ends as a dead letter.
        let letters = letters.ok_or_else(|| NotDelivered("a body without order_id and user_id".to_owned()))?;
        let sent = self.store.send_mails(&letters).await;
        for letter in sent.map_err(|error| NotDelivered(error.to_string()))? {
            tracing::info!(
                kind = letter.kind,
                order = %letter.order_id,
                user = %letter.user_id,
                "mail"
            );
        }
        Ok(())
    }
}

fn letter(event: &Recorded) -> Option<Letter> {
    let id = |name: &str| event.body.get(name)?.as_str()?.parse().ok();
    Some(Letter {
        event_id: event.id,
        kind: event.kind.clone(),
        order_id: id("order_id")?,
        user_id: id("user_id")?,
    })
}

impl Subscriber for Mail {
    fn name(&self) -> &'static str {
        "mail"
    }

    fn wants(&self, kind: &str) -> bool {
        [events::SUCCEEDED, events::FAILED, events::REFUNDED].contains(&kind)
    }

    fn take_in<'a>(&'a self, events: &'a [Recorded]) -> BoxFuture<'a, Result<(), NotDelivered>> {
        Box::pin(self.send(events))
    }
}
