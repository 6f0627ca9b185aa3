//! Never oversold, never lost: what the platform promises a buyer, while it is crowded, killed, paused, cut off and repeated.
//!
//! The buyers keep books (`e2e::market`), and each test ends with them held against the services.

mod crashes;
mod crowd;
mod database;
mod network;
mod paused;

use e2e::Stores;
use service_store::testing::TestStore;

/// Databases for both services, of the kind that `ticket` is; they live as long as these.
fn stores(ticket: TestStore) -> (Stores, [TestStore; 2]) {
    let user = TestStore::new(ticket.location().dialect()).expect("where there is one there are two");
    let stores = Stores {
        ticket: ticket.url(),
        user: user.url(),
    };
    (stores, [ticket, user])
}
