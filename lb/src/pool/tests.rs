//! What the pool promises about removals, with connections to nobody.

use std::task::{Context, Wake, Waker};

use super::*;
use crate::endpoint::connection::Closed;

fn roster(ids: &[&str]) -> Roster {
    let backends = ids.iter().map(|id| Backend {
        key: Key {
            instance_id: (*id).into(),
            address: "127.0.0.1:1".into(),
            is_secured: false,
        },
        secured: None,
        authority: http::uri::Authority::from_static("127.0.0.1:1"),
        weight: 100,
        attributes: Arc::default(),
        epoch: 1,
        registry: 0,
    });
    Roster {
        backends: backends.collect(),
        known: ids.len(),
        passed_over: Vec::new(),
        unspoken: None,
        origin: Origin::Fixed,
    }
}

/// Asks, at the very moment a driver is told of the removal, whether a call could still begin.
struct Told {
    pool: Arc<Pool>,
    picked_before: Choice,
    could_begin: AtomicU64,
}

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        let late = self.picked_before.connection.try_room();
        if self.pool.pick(Wish::default()).is_some() || late.is_ok() {
            self.could_begin.store(1, Ordering::SeqCst);
        }
    }
}

/// A driver that has heard of the removal waits for the calls it can see and then cuts the connection. It was told before
/// the ready set was changed, and nothing turned away who had an older set in hand: such a call could be sent into a
/// connection that nobody would flush.
#[tokio::test]
async fn no_call_can_begin_once_the_driver_is_told_of_the_removal() {
    let pool = Arc::new(Pool::new(Policy::default()));
    let [newcomer] = &pool.apply(roster(&["a"]))[..] else {
        panic!("one")
    };
    pool.lines(&newcomer.endpoint, vec![Connection::idle(2).await]);
    let told = Arc::new(Told {
        picked_before: pool.pick(Wish::default()).expect("ready"),
        pool: Arc::clone(&pool),
        could_begin: AtomicU64::new(0),
    });
    let mut waits = Box::pin(told.picked_before.connection.clone().room());
    let (one, other) = (
        pool.place(Wish::default()).expect("room"),
        pool.place(Wish::default()).expect("room"),
    );
    let waker = Waker::from(Arc::clone(&told));
    let mut removed = Box::pin(newcomer.removed.cancelled());
    assert!(removed.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert!(
        waits
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );

    pool.apply(roster(&[]));
    assert!(newcomer.removed.is_cancelled());
    assert_eq!(told.could_begin.load(Ordering::SeqCst), 0);
    drop((one, other));
    assert_eq!(waits.await.expect_err("turned away"), Closed);
}
