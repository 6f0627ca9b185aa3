//! From a watched set of instances to a channel that any generated tonic client runs over.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use proto::ticket::v1::{ListEventsRequest, ticket_service_client::TicketServiceClient};
//!
//! let registry = registry_client::Registry::connect(["http://127.0.0.1:7000"])?;
//! let channel = lb::Channel::builder(registry.discover("ticket-svc")).build();
//! let mut tickets = TicketServiceClient::new(channel);
//!
//! let response = tickets.list_events(ListEventsRequest::default()).await?;
//! if let Some(picked) = response.extensions().get::<lb::Picked>() {
//!     println!("answered by {} at {}", picked.instance_id, picked.address);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Without a registry, the same over fixed addresses:
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//!
//! let channel = lb::Channel::builder(lb::Target::fixed(["127.0.0.1:7101", "127.0.0.1:7102"])?)
//!     .policy(lb::Policy::RoundRobin)
//!     .call_timeout(Duration::from_secs(2))
//!     .build();
//! channel.ready(Duration::from_secs(5)).await?;
//! for endpoint in channel.endpoints() {
//!     println!("{} {:?}, {} calls in flight", endpoint.address, endpoint.state, endpoint.in_flight);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What it promises
//!
//! - **A call only meets instances that are connected.** Each endpoint is kept connected by a task of its own, with jittered
//!   back-off, whether or not there is traffic. A connection that ends takes its endpoint out of the ready set at once.
//! - **A call that provably reached no handler goes elsewhere, unseen.** A request that was given back unsent, a refused stream,
//!   a stream above a GOAWAY's last one. Nothing else is sent twice unless the caller has said that it may be.
//! - **Where it may be, a failure is not the end of a call.** By [`Mode`]: tried elsewhere (failover), now or later (failback), at
//!   once in several places (forking, hedging), everywhere (broadcast), or not minded (failsafe). One deadline covers all
//!   attempts, a budget keeps them below 1.2 times the calls and 10 a second, and who is retried from outside does not retry.
//! - **Nothing waits for ever.** With no instance ready a call fails after the ready timeout and says why; an empty set, an
//!   unreachable one and a full one are told apart (`ErrorInfo` reasons `NO_INSTANCES`, `NOT_READY` and `NO_ROOM`). An instance
//!   that allows no more calls at a time is passed over while another one has room, and gets another connection. The deadline of a call is the earliest
//!   of its own, the caller's and the channel's; it travels as `grpc-timeout` and covers the whole response stream.
//! - **Calls keep away from the slow and the failing, and come back.** The default policy goes by the latency that is to be expected;
//!   a failure counts as slow, since failing is fast. [`Policy`] has the others, and takes one that is written elsewhere ([`Choose`]).
//! - **A call goes where it may, and nowhere else.** Rules by method, header and caller narrow the instances by version, group,
//!   zone, tag or metadata ([`Routes`]), weighted and sticky where that is asked; an untagged call never reaches a tagged
//!   instance; a zone is preferred only as far as the load on every instance stays even ([`ZonePreference`]). A route that leads
//!   nowhere is an error that names the rule (`NO_ROUTE`).
//! - **Who fails is left out, and asked again with care.** Five failures in a row, or far more than the others have, take an instance
//!   out of service while it stays connected; one call at a time finds out whether it is well again. Never more than a tenth of
//!   them (but one), and when fewer than half would be left, everybody is called ([`OutlierDetection`]).
//! - **Who is new gets little at first**, and its full share after 20 s ([`SlowStart`]).
//! - **What cannot go well need not be tried**, where that is asked for: [`CircuitBreaker`]s for methods and the service, a
//!   [`ConcurrencyLimit`] that goes by latency, and [`Throttling`] of what would be refused (reasons `CIRCUIT_OPEN`,
//!   `CONCURRENCY_LIMIT` and `THROTTLED`).
//! - **Settings are of methods, and change while calls go on.** A [`ServiceConfig`] in gRPC's JSON, from code, a file, live or announced
//!   by the instances; a call goes by what holds when it begins. A mistake in one is told with its line, and changes nothing.
//! - **What stands in for a service says so.** A fallback answers by force or after a failure, never instead of a business error, and
//!   its responses carry [`Degraded`].
//! - **In flight means until the end of the stream.** A subscription of an hour is an hour of load.
//! - **Changes of the set leave the rest alone.** An instance that stays keeps its connection; one that goes finishes its calls
//!   and gets no new ones. Losing the registry changes nothing: the last good set stays,
//!   and with [`Builder::cache_dir`] it outlives the process. A registry whose first word to a process that has kept a set is that
//!   there is nobody is not believed for 30 s.
//! - **Whom it calls and why can be asked.** [`Channel::explain`] lists every known instance with its numbers, or with what keeps
//!   calls from it; a call that is recorded says so of its own choice (event `lb.pick`), [`live_page`] of all channels of a process.
//!
//! What it does not do: it does not know by itself which methods may be processed twice.
//!
//! # Versions
//!
//! Rust 1.88 or later, tonic 0.14, Tokio. What may grow without a break is `#[non_exhaustive]`: enums, errors, and structs that this crate
//! gives out with public fields. Settings are made by constructors and setters that check their ranges and say what is wrong; nothing that
//! comes from outside (configs, addresses, answers, what instances announce) makes the crate panic.
//!
//! # The way of a call
//!
//! [`Channel`] → `call` (deadline, spans, at most a few attempts) → `pool` (the ready set, a snapshot read without a lock) →
//! `pick` (a pure function of loads and weights) → `endpoint::connection` (HTTP/2) → and back through [`ResponseBody`], in whose
//! end the call ends. All of it runs in the caller's task.

#[cfg(feature = "bench")]
pub mod bench;
mod breaker;
mod cache;
mod call;
mod channel;
mod degrade;
mod endpoint;
mod error;
mod explain;
mod limit;
mod load;
mod outlier;
mod pick;
mod pool;
mod protobuf;
mod range;
mod retry;
mod route;
mod settings;
#[cfg(test)]
mod simulation;
mod status;
mod sync;
mod target;
mod window;

pub use breaker::CircuitBreaker;
pub use call::{BroadcastResult, BroadcastResults, FaultCounts, ResponseBody, Swallowed};
pub use channel::{Builder, Channel, Picked, ResponseFuture};
pub use degrade::{Degraded, FallbackRequest, FallbackWhen, InvalidDescriptors};
pub use endpoint::{Backoff, EndpointState, EndpointView, InvalidBackoff};
pub use error::{ConnectError, EndpointFailure, Error};
pub use explain::{DiscoveryView, Explanation, Filter, InstanceView, Removed, live_page};
pub use limit::{ConcurrencyLimit, Throttling};
pub use outlier::{Ejection, EjectionReason, FailurePercentage, OutlierDetection, SuccessRate};
pub use pick::{
    Choose, ConsistentHash, Draw, HashKey, InstanceRef, Instances, InvalidPolicy, LeastRequest, OwnPolicy, PeakEwma,
    Policy, Prequal, UnknownPolicy,
};
pub use pool::SlowStart;
pub use range::OutOfRange;
pub use retry::{
    FailbackPolicy, Forks, HedgingDelay, HedgingPolicy, InvalidRetry, Mode, RetryBackoff, RetryBudget, RetryPolicy,
    RetryThrottling,
};
pub use route::{
    FORCE_TAG_HEADER, HeaderMatch, InvalidRoute, InvalidSubsetting, InvalidZonePreference, MethodMatch, RouteRule,
    Routes, Split, Subset, Subsetting, TAG_BAGGAGE, TAG_HEADER, ZonePreference,
};
pub use settings::{CallSettings, InvalidServiceConfig, Problem, ServiceConfig};
pub use target::{InvalidTarget, RankedTarget, Target};
