//! What a fixture of the whole service cannot set up: moments between two looks.

use std::sync::atomic::AtomicUsize;

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

    /// As whoever drove it does at its end.
    async fn give_up(&self, order: &Order) {
        let given_up = self.store().give_up_claim(order, Duration::ZERO).await;
        given_up.expect("given up");
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
    let driving = fixture.purchases.inner.register.enter(order.id);
    let joined = fixture.purchases.buy(fixture.new.clone()).await.expect("joined");
    assert_eq!(joined, order);
    assert!(
        fixture.purchases.follow(order.id).is_some(),
        "there is something to follow"
    );
    let stranger = NewOrder {
        id: Uuid::new_v4(),
        ..fixture.new.clone()
    };
    let refused = fixture.purchases.buy(stranger).await;
    assert!(matches!(refused, Err(BuyError::Full)), "{refused:?}");
    drop(driving);
    fixture.give_up(&order).await;
    let refused = fixture.purchases.buy(fixture.new.clone()).await;
    assert!(
        matches!(refused, Err(BuyError::Full)),
        "to take it up needs a slot: {refused:?}"
    );
    drop(slot);
}

/// An order was read, then registered as driven. If its driver came to the end in between, the step that was read was performed
/// once more: the ticket service was asked for seats for an order that had failed already. Now a claim is what reads it.
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
    let taken = fixture.purchases.take_up(stale.id, slot).await.expect("an answer");
    assert!(!taken, "there is nothing left to do");
    assert_eq!(fixture.finish().await, 0, "the ticket service was called");
    assert_eq!(store.order(order.id).await.expect("the order"), ended);
}

/// The other half: what nobody drives goes on from its recorded step.
#[tokio::test]
async fn an_order_that_nobody_drives_goes_on() {
    let fixture = Fixture::start(1).await;
    let order = fixture.record().await;
    fixture.give_up(&order).await;
    let slot = fixture.purchases.slot().expect("the only one");
    assert!(fixture.purchases.take_up(order.id, slot).await.expect("an answer"));
    let give_up = Instant::now() + Duration::from_secs(60);
    let settled = fixture.purchases.settled(order, give_up).await.expect("the order");
    assert!(settled.is_final(), "{settled:?}");
    assert!(fixture.finish().await > 0, "the ticket service was not called");
}

/// A driver whose claim another one took over finds out at its next write, and leaves the order alone from then on.
#[tokio::test]
async fn a_driver_that_was_overtaken_stops() {
    let fixture = Fixture::start(1).await;
    let order = fixture.record().await;
    let other = fixture.store().clone().claiming_as("other", Duration::from_secs(60));
    fixture.give_up(&order).await;
    let claimed = other
        .claim_order(order.id)
        .await
        .expect("an answer")
        .expect("it is free");
    let driving = fixture.purchases.inner.register.enter(order.id).expect("nobody here");
    fixture.purchases.drive(order, Attempts::FIRST, driving).await;
    let now = fixture.store().order(claimed.id).await.expect("the order");
    assert_eq!(now, claimed, "nothing was moved on");
}

/// A BuyTicket that comes again at a process which does not drive the order answers what the other process made of it.
#[tokio::test]
async fn what_another_process_drives_is_followed_by_looking() {
    let fixture = Fixture::start(1).await;
    let order = fixture.record().await;
    let other = fixture.store().clone().claiming_as("other", Duration::from_secs(60));
    fixture.give_up(&order).await;
    let claimed = other
        .claim_order(order.id)
        .await
        .expect("an answer")
        .expect("it is free");
    let joined = fixture.purchases.buy(fixture.new.clone()).await.expect("recorded");
    assert_eq!((joined.version, joined.claim), (claimed.version, claimed.claim));
    let give_up = Instant::now() + Duration::from_secs(60);
    let purchases = fixture.purchases.clone();
    let following = tokio::spawn(async move { purchases.settled(joined, give_up).await });
    let sold_out = Step::Failed(Failing::new(Failure::SoldOut, "sold out"));
    let ended = other.advance(&claimed, sold_out, None).await.expect("its own");
    let settled = following.await.expect("no panic").expect("the order");
    assert_eq!(settled, ended);
    assert_eq!(fixture.finish().await, 0, "the ticket service was called");
}
