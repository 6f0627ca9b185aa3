//! What a fixture of the whole service cannot set up: moments between two looks.

use std::sync::atomic::{AtomicUsize, Ordering};

use service_store::SystemClock;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Status, service::InterceptorLayer, transport::Server};
use uuid::Uuid;

use super::*;
use crate::{
    domain::{
        account::{Email, NewUser},
        order::{Failing, Failure, Quantity, Selection, Trace},
        signing::Schedule,
    },
    signing::Signing,
};

/// Purchases, and a ticket service that counts its calls and answers none.
struct Fixture {
    purchases: Purchases,
    new: NewOrder,
    calls: Arc<AtomicUsize>,
    server: tokio::task::JoinHandle<()>,
    // Dropped last: the file must outlive the pools.
    _folder: TempDir,
}

impl Fixture {
    /// At most so many purchases at once.
    async fn start(limit: usize) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let path = folder.path().join("users.db");
        let store = Store::open(path.to_str().expect("UTF-8"), Arc::new(SystemClock))
            .await
            .expect("the store opens");
        let new_user = NewUser {
            request_id: Uuid::new_v4(),
            email: Email::try_new("ada@example.org").expect("an address"),
            display_name: service_store::Text::try_new("Ada").expect("in limits"),
            currency: service_store::Currency::EUR,
        };
        let user = store
            .create_user(Uuid::new_v4(), &new_user, "hash")
            .await
            .expect("new")
            .user;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let target = lb::Target::fixed([listener.local_addr().expect("bound").to_string()]).expect("an address");
        let calls = Arc::<AtomicUsize>::default();
        let counter = calls.clone();
        let counting = InterceptorLayer::new(move |_: Request<()>| -> Result<Request<()>, Status> {
            counter.fetch_add(1, Ordering::SeqCst);
            Err(Status::unavailable("counted"))
        });
        let router = Server::builder()
            .layer(counting)
            .add_routes(tonic::service::Routes::default());
        let server = tokio::spawn(async move {
            let served = router.serve_with_incoming(TcpListenerStream::new(listener)).await;
            served.expect("it serves");
        });
        let schedule = Schedule {
            rotation: Duration::from_secs(24 * 3600),
            token_lifetime: Duration::from_secs(900),
        };
        let signing = Signing::open(store.clone(), schedule, "ticket-svc")
            .await
            .expect("keys");
        let tickets = Tickets::new(lb::Channel::builder(target).build(), Duration::from_secs(120), signing);
        let new = NewOrder {
            id: Uuid::new_v4(),
            user_id: user.id,
            event_id: Uuid::new_v4(),
            selection: Selection::BestAvailable {
                quantity: Quantity::try_new(2).expect("in range"),
                section: None,
            },
        };
        Self {
            purchases: Purchases::new(store, tickets, limit),
            new,
            calls,
            server,
            _folder: folder,
        }
    }

    fn store(&self) -> &Store {
        &self.purchases.inner.store
    }

    async fn record(&self) -> Order {
        match self.store().record_order(&self.new, &Trace::default()).await {
            Ok(Recorded::New(order)) => order,
            other => panic!("not new: {other:?}"),
        }
    }

    /// Waits for all purchases; how often the ticket service was called.
    async fn finish(&self) -> usize {
        let left = self.purchases.finish(Duration::from_secs(60)).await.expect("a count");
        assert_eq!(left, 0, "unfinished orders");
        self.calls.load(Ordering::SeqCst)
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A repeated BuyTicket took a slot before it joined the purchase that was under way: with all slots taken, one of them by
/// that very purchase, its own buyer was told that too many are under way.
#[tokio::test]
async fn a_repeat_joins_its_purchase_without_a_slot() {
    let fixture = Fixture::start(1).await;
    let order = fixture.record().await;
    let slot = fixture.purchases.slot().expect("the only one");
    let (driving, _) = fixture.purchases.inner.register.enter(order.id);
    let (joined, following) = fixture.purchases.buy(fixture.new.clone()).await.expect("joined");
    assert_eq!(joined, order);
    assert!(following.is_some(), "there is something to follow");
    let stranger = NewOrder {
        id: Uuid::new_v4(),
        ..fixture.new.clone()
    };
    let refused = fixture.purchases.buy(stranger).await;
    assert!(matches!(refused, Err(BuyError::Full)), "{refused:?}");
    drop(driving);
    let refused = fixture.purchases.buy(fixture.new.clone()).await;
    assert!(
        matches!(refused, Err(BuyError::Full)),
        "to take it up needs a slot: {refused:?}"
    );
    drop(slot);
}

/// An order was read, then registered as driven. If its driver came to the end in between, the step that was read was performed
/// once more: the ticket service was asked for seats for an order that had failed already.
#[tokio::test]
async fn an_order_that_ended_before_it_was_taken_up_is_left_alone() {
    let fixture = Fixture::start(1).await;
    let order = fixture.record().await;
    let store = fixture.store();
    let stale = store
        .advance(&order, Step::Hold, None)
        .await
        .expect("the first to move it");
    let failed = Step::Failed(Failing::new(Failure::SoldOut, "sold out"));
    let ended = store.advance(&stale, failed, None).await.expect("the first to move it");
    let slot = fixture.purchases.slot().expect("the only one");
    assert!(fixture.purchases.take_up(stale, slot), "nobody drives it");
    assert_eq!(fixture.finish().await, 0, "the ticket service was called");
    assert_eq!(store.order(order.id).await.expect("the order"), ended);
}

/// The other half: what is as it was read goes on from there.
#[tokio::test]
async fn an_order_that_is_as_it_was_read_goes_on() {
    let fixture = Fixture::start(1).await;
    let order = fixture.record().await;
    let slot = fixture.purchases.slot().expect("the only one");
    assert!(fixture.purchases.take_up(order.clone(), slot), "nobody drives it");
    if let Some(mut following) = fixture.purchases.follow(order.id) {
        let end = tokio::time::timeout(Duration::from_secs(60), following.ended());
        end.await.expect("it ends");
    }
    assert!(fixture.finish().await > 0, "the ticket service was not called");
}
