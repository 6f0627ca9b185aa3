//! Every limit on what comes in, in one table. The wire's comments state the same numbers to clients.
//!
//! It holds numbers and why they are what they are; the checks themselves live with the values they guard, in `model`.

use std::time::Duration;

/// Characters of a namespace, service, group, tag or zone: the length of a DNS label (RFC 1035), so that a service name can
/// become one.
pub(crate) const NAME_CHARS: usize = 63;
/// Characters of an instance id: room for a host name, a port and a UUID.
pub(crate) const INSTANCE_ID_CHARS: usize = 128;
/// Characters of a version.
pub(crate) const VERSION_CHARS: usize = 64;
/// Characters of an endpoint's host: the longest DNS name (RFC 1035).
pub(crate) const HOST_CHARS: usize = 253;
/// Endpoints of one instance.
pub(crate) const ENDPOINTS: usize = 8;
/// The heaviest weight; 0 takes no calls.
pub(crate) const WEIGHT_MAX: u32 = 1_000;
/// The weight of an instance that says nothing.
pub(crate) const WEIGHT_DEFAULT: u32 = 100;
/// gRPC services that an instance lists.
pub(crate) const GRPC_SERVICES: usize = 64;
/// Characters of a gRPC service's full name.
pub(crate) const GRPC_SERVICE_CHARS: usize = 255;
/// Metadata pairs of an instance.
pub(crate) const METADATA_PAIRS: usize = 64;
/// Characters of a metadata key.
pub(crate) const METADATA_KEY_CHARS: usize = 63;
/// Bytes of a metadata value.
pub(crate) const METADATA_VALUE_BYTES: usize = 1_024;
/// Bytes of all metadata keys and values of an instance. With [`INSTANCES_PER_REGISTER`] it keeps the largest revision, and so
/// the largest delta, below the 4 MiB that a stock gRPC client accepts.
pub(crate) const METADATA_BYTES: usize = 16 * 1_024;
/// Characters of a removal's detail.
pub(crate) const DETAIL_CHARS: usize = 256;
/// Characters of the name of whoever decides something: room for an e-mail address or a SPIFFE id of usual length.
pub(crate) const WHO_CHARS: usize = 128;
/// How long a Drain waits for watchers where the request does not say.
pub(crate) const DRAIN_ACK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// How far ahead an operator's decision may end: what is meant for longer is meant for good.
pub(crate) const UNTIL_MAX: Duration = Duration::from_secs(366 * 24 * 3_600);
/// Overrides that are kept of instances that are not registered, of one service. Instances whose ids the registry chooses never
/// come back under their names; of others as many may be away at once as a large service has. Beyond, the one that was decided on
/// first is forgotten.
pub(crate) const OVERRIDES_KEPT_OF_SERVICE: usize = 1_000;
/// The same of all services together: some 10 MiB.
pub(crate) const OVERRIDES_KEPT: usize = 10_000;
/// Watches that are told of an instance: some 150 bytes each.
pub(crate) const WATCHES_TOLD: usize = 1_000;
/// Steps that are told of an instance: what happens to one in a bad week, at some 800 bytes each at the most.
pub(crate) const STEPS: usize = 256;
/// Instances of one Register.
pub(crate) const INSTANCES_PER_REGISTER: usize = 64;
/// Instances of one lease: all of them leave in one revision when it lapses.
pub(crate) const INSTANCES_PER_LEASE: usize = 1_024;
/// Removals after which an expiry continues in the next revision; a lease is never split over two.
pub(crate) const REMOVALS_PER_REVISION: usize = 1_000;
/// Renewals of one round of KeepAlive.
pub(crate) const RENEWALS_PER_ROUND: usize = 1_000;
/// Leases that a KeepAlive stream remembers, to suspect them when it breaks: some 2 MiB. What it carries beyond is renewed all
/// the same and keeps its full time.
pub(crate) const LEASES_PER_STREAM: usize = 65_536;
/// The shortest heartbeat interval.
pub(crate) const HEARTBEAT_MIN: Duration = Duration::from_millis(100);
/// The longest heartbeat interval.
pub(crate) const HEARTBEAT_MAX: Duration = Duration::from_secs(3_600);
/// The heartbeat interval of a registrant that says nothing.
pub(crate) const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(5);
/// The most heartbeats that may be missed.
pub(crate) const MISSES_MAX: u32 = 100;
/// The misses of a registrant that says nothing.
pub(crate) const MISSES_DEFAULT: u32 = 3;
/// The shortest time to live: below it a scheduling hiccup of a busy machine looks like a death.
pub(crate) const TTL_MIN: Duration = Duration::from_millis(500);
/// How long AwaitWatchers or Drain waits for watchers at the most: far longer than a watcher that lives takes.
pub(crate) const ACK_TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// How long AwaitWatchers waits where the request does not say.
pub(crate) const ACK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Watches that an answer names: some 340 KiB, far below the 4 MiB that a stock gRPC client accepts.
pub(crate) const UNACKNOWLEDGED_NAMED: usize = 10_000;
/// Characters of a lease id or secret on the wire; both are 32 today, a longer one was never granted.
pub(crate) const LEASE_TEXT_CHARS: usize = 64;
/// Versions that a list names of one service: with 1,000 services a page of them stays below the 4 MiB that a stock gRPC
/// client accepts.
pub(crate) const SERVICE_VERSIONS: usize = 32;
/// The most entries of a page.
pub(crate) const PAGE_MAX: usize = 1_000;
/// The entries of a page when the request does not say.
pub(crate) const PAGE_DEFAULT: usize = 100;
/// Bytes after which a page ends early, so that it stays below the 4 MiB that a stock gRPC client accepts.
pub(crate) const PAGE_BYTES: usize = 2 * 1_024 * 1_024;
/// Characters of a page token; ours are at most some 700.
pub(crate) const PAGE_TOKEN_CHARS: usize = 1_024;
/// Violations that one answer lists: they travel in a response header, of which many clients accept 16 KiB.
pub(crate) const VIOLATIONS: usize = 16;
/// How long a request id is remembered.
pub(crate) const REQUEST_ID_WINDOW: Duration = Duration::from_secs(600);
/// How many request ids are remembered; beyond, the oldest is forgotten before its time.
pub(crate) const REQUEST_IDS: usize = 65_536;
/// Bytes of the answers that are remembered with them: room for as many of one instance each, at some 350 bytes. Those of 64
/// instances with long ids are 30 times as large.
pub(crate) const REQUEST_ID_BYTES: usize = 24 * 1_024 * 1_024;
/// Instances of the whole registry, at some 1 KiB each with a typical record.
pub(crate) const INSTANCES: usize = 1_000_000;
/// Instances of one registrant where nothing else is set: a tenth of what there may be, and far more than one team runs.
pub(crate) const INSTANCES_PER_PRINCIPAL: usize = 100_000;
/// Leases of the whole registry.
pub(crate) const LEASES: usize = 1_000_000;

/// Between two probes of an instance: the shortest, the longest, and where nothing is said.
pub(crate) const PROBE_INTERVAL_MIN: Duration = Duration::from_secs(1);
pub(crate) const PROBE_INTERVAL_MAX: Duration = Duration::from_secs(3_600);
pub(crate) const PROBE_INTERVAL_DEFAULT: Duration = Duration::from_secs(30);
/// How long one may take: the least, and where nothing is said. At most the interval.
pub(crate) const PROBE_TIMEOUT_MIN: Duration = Duration::from_millis(100);
pub(crate) const PROBE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(3);
/// The longest that one may take: few are under way at a time, and those that hang must not keep the others from being asked.
pub(crate) const PROBE_TIMEOUT_MAX: Duration = Duration::from_secs(10);
/// How many fail in a row before the instance is failing: the most, and where nothing is said.
pub(crate) const PROBE_MISSES_MAX: u32 = 10;
pub(crate) const PROBE_MISSES_DEFAULT: u32 = 3;
