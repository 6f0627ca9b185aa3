//! Where events go: to the subscribers of the process, one batch at a time, and to a broker.

use futures_util::future::BoxFuture;

use crate::event::Recorded;

/// Takes events over for whoever listens elsewhere.
pub trait Broker: Send + Sync + 'static {
    /// Takes a batch over, no two events of which have the same key; answers for each of them, in order. `Ok` means that it
    /// has the event and will not lose it.
    fn take_over<'a>(&'a self, events: &'a [&'a Recorded]) -> BoxFuture<'a, Vec<Result<(), NotTaken>>>;
}

/// Why a broker did not take an event over. Shown to operators: no personal data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    /// It takes nothing over now, whatever the event: this one waits for as long as it takes.
    #[error("{0}")]
    Away(String),
    /// It takes others, and not this one.
    #[error("{0}")]
    Refused(String),
}

/// Why an event was not taken over. Shown to operators: no personal data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotDelivered(pub String);

/// Somebody in this process who wants to know.
pub trait Subscriber: Send + Sync + 'static {
    /// For logs and dead letters.
    fn name(&self) -> &'static str;

    /// Does it want events of that kind?
    fn wants(&self, kind: &str) -> bool;

    /// Takes events in, all or none; each perhaps once more than before ([`first_time`](crate::first_time) tells).
    fn take_in<'a>(&'a self, events: &'a [Recorded]) -> BoxFuture<'a, Result<(), NotDelivered>>;
}

/// The subscribers of a process. An event is delivered when all who want it have taken it in.
#[derive(Default)]
pub struct Subscribers(Vec<Box<dyn Subscriber>>);

impl Subscribers {
    /// With one more.
    #[must_use]
    pub fn with(mut self, subscriber: impl Subscriber) -> Self {
        self.0.push(Box::new(subscriber));
        self
    }

    pub(crate) async fn deliver(&self, events: &[Recorded]) -> Vec<Result<(), NotDelivered>> {
        let mut answers = vec![Ok(()); events.len()];
        for subscriber in &self.0 {
            let mut wanted = Vec::new();
            let mut places = Vec::new();
            for (place, event) in events.iter().enumerate() {
                if subscriber.wants(&event.kind) {
                    wanted.push(event.clone());
                    places.push(place);
                }
            }
            if wanted.is_empty() {
                continue;
            }
            let all = subscriber.take_in(&wanted).await;
            for (place, event) in places.into_iter().zip(&wanted) {
                let answer = match &all {
                    // One by one then: a bad one must not take the others with it.
                    Err(_) if wanted.len() > 1 => subscriber.take_in(std::slice::from_ref(event)).await,
                    answer => answer.clone(),
                };
                if let Err(NotDelivered(error)) = answer {
                    answers[place] = Err(NotDelivered(format!("{}: {error}", subscriber.name())));
                }
            }
        }
        answers
    }
}

impl std::fmt::Debug for Subscribers {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_list()
            .entries(self.0.iter().map(|subscriber| subscriber.name()))
            .finish()
    }
}
