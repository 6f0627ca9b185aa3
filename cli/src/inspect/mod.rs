//! What one running process is asked at its admin port: whom it calls (`tessera lb`), what it logs (`tessera log-level`); what one
//! service could not deliver (`tessera events`); and a ticket at a door, for which nobody is asked (`tessera ticket-code`). Not here: what the registry knows.

mod admin;
pub(crate) mod balance;
pub(crate) mod events;
pub(crate) mod log_level;
pub(crate) mod ticket_code;
