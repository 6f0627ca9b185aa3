//! The tables, which every service that writes events has in its own store.

use service_store::Schema;

/// The tables `outbox` and `inbox`, as one migration for each dialect. A service takes it up among its own
/// ([`Schema::with`]), under a number of its own choice that never changes again.
#[must_use]
pub fn schema() -> Schema {
    Schema {
        sqlite: sqlx::migrate!("./migrations/sqlite"),
        postgres: sqlx::migrate!("./migrations/postgres"),
    }
}
