//! Which instances a call may go to: rules, tags, zones, subsets, several registries. Who of them gets it is `pick`'s choice, and
//! who is there is the pool's knowledge.
//!
//! Everything here is pure: [`rule`] is what people write, [`table`] decides where a call goes, [`zone`] and [`several`] weigh
//! what is left, [`subsetting`] says who is connected to in the first place. The pool turns a decision into a view of its ready
//! set (`pool::views`), once for each set, so that a pick by a route costs what any pick costs.
//!
//! # The order
//!
//! 1. *Subsetting* ([`Subsetting`]) bounds who is connected to.
//! 2. The first *rule* ([`RouteRule`]) that matches the call narrows, by version, group, zone, tag or metadata; a *split* in it
//!    draws one of several narrowings, by weight.
//! 3. The *tag* (Dubbo's rule, always on): an untagged call never reaches a tagged instance; a tagged one goes to instances of its
//!    tag and, if none is ready, to untagged ones, unless it is forced.
//! 4. Of *several registries* ([`Target::several`](crate::Target::several)) one kind is chosen among those that still have
//!    somebody.
//! 5. The *zone* ([`ZonePreference`]) shifts weights towards the caller's own, so far that the load on every instance stays even.

mod call;
mod destination;
mod rule;
mod setup;
mod several;
mod subsetting;
mod table;
mod zone;

pub use call::{FORCE_TAG_HEADER, TAG_BAGGAGE, TAG_HEADER};
pub(crate) use call::{Route, Tag};
pub use destination::{Split, Subset};
pub use rule::{HeaderMatch, InvalidRoute, MethodMatch, RouteRule, Routes};
pub(crate) use setup::Setup;
pub(crate) use several::Rank;
pub use subsetting::{InvalidSubsetting, Subsetting};
pub(crate) use table::{Caller, Destination, Table};
pub use zone::{InvalidZonePreference, ZonePreference};
pub(crate) use zone::{Refine, Weighed, refine};
