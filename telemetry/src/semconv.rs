//! Every attribute and metric name Tessera emits, in one place, because the RPC conventions are still moving.
//!
//! Names follow OpenTelemetry semantic conventions [`VERSION`] (RPC: release candidate). Known to be renamed next:
//! `rpc.response.status_code` becomes `rpc.status_code`. Not here: any logic; see [`crate::rpc`] for the status rules.

/// The version of the OpenTelemetry semantic conventions that the names follow.
pub const VERSION: &str = "1.42.0";

/// Always [`RPC_SYSTEM_GRPC`] here.
pub const RPC_SYSTEM_NAME: &str = "rpc.system.name";
/// The value of [`RPC_SYSTEM_NAME`] for gRPC.
pub const RPC_SYSTEM_GRPC: &str = "grpc";
/// The full method, `package.Service/Method`, or [`OTHER`] when the server does not know it.
pub const RPC_METHOD: &str = "rpc.method";
/// What the caller asked for when [`RPC_METHOD`] is [`OTHER`].
pub const RPC_METHOD_ORIGINAL: &str = "rpc.method_original";
/// The gRPC status as text, for example `OK` or `DEADLINE_EXCEEDED`.
pub const RPC_RESPONSE_STATUS_CODE: &str = "rpc.response.status_code";
/// The gRPC status as text, on failures only.
pub const ERROR_TYPE: &str = "error.type";
/// The logical target of a call (the service name), not the instance that was chosen.
pub const SERVER_ADDRESS: &str = "server.address";
/// The address of the other end of the connection: on a client the instance last tried, on a server the caller.
pub const NETWORK_PEER_ADDRESS: &str = "network.peer.address";
/// The port that belongs to [`NETWORK_PEER_ADDRESS`].
pub const NETWORK_PEER_PORT: &str = "network.peer.port";
/// Stands for a value outside the known set.
pub const OTHER: &str = "_OTHER";

/// Resource: the service's name.
pub const SERVICE_NAME: &str = "service.name";
/// Resource: the service's version.
pub const SERVICE_VERSION: &str = "service.version";
/// Resource: the instance, equal to its id in the registry, so that traces and registry join.
pub const SERVICE_INSTANCE_ID: &str = "service.instance.id";
/// Resource: the operating system's process id.
pub const PROCESS_PID: &str = "process.pid";

/// Which store it is, in lower case: `sqlite`, `postgresql`, `etcd`, or [`DB_SYSTEM_EMBEDDED`].
pub const DB_SYSTEM_NAME: &str = "db.system.name";
/// The value of [`DB_SYSTEM_NAME`] for the registry's own log and runs, which no list has.
pub const DB_SYSTEM_EMBEDDED: &str = "tessera.embedded";
/// What the store does: `COMMIT`, `BEGIN IMMEDIATE`.
pub const DB_OPERATION_NAME: &str = "db.operation.name";
/// How many changes one commit makes durable; only where it is more than one.
pub const DB_OPERATION_BATCH_SIZE: &str = "db.operation.batch.size";
/// What a message is handed to: the selection that is watched.
pub const MESSAGING_DESTINATION_NAME: &str = "messaging.destination.name";
/// [`MESSAGING_SYSTEM_REGISTRY`] on the spans of a change on its way to watchers.
pub const MESSAGING_SYSTEM: &str = "messaging.system";
/// The value of [`MESSAGING_SYSTEM`] for the registry's watches, which no list has.
pub const MESSAGING_SYSTEM_REGISTRY: &str = "tessera.registry";
/// `send` or `process`.
pub const MESSAGING_OPERATION_TYPE: &str = "messaging.operation.type";

/// Ours: how many messages this side sent on the call.
pub const SENT_MESSAGES: &str = "tessera.rpc.sent_messages";
/// Ours: how many messages this side received on the call.
pub const RECEIVED_MESSAGES: &str = "tessera.rpc.received_messages";
/// Ours: the time until the call's deadline when it began, in milliseconds. Only on calls that have one.
pub const DEADLINE_BUDGET_MS: &str = "tessera.deadline.budget_ms";
/// Ours: what was left of it when the call ended, in milliseconds; negative: it ended too late.
pub const DEADLINE_LEFT_MS: &str = "tessera.deadline.left_ms";
/// Ours, on server spans that end when the stream is open: it has no end of its own.
pub const ENDLESS: &str = "tessera.rpc.endless";
/// Ours: the id of the instance an attempt went to, as registered.
pub const PEER_INSTANCE_ID: &str = "tessera.peer.instance_id";
/// Ours: the zone of that instance, as registered.
pub const PEER_ZONE: &str = "tessera.peer.zone";
/// Ours: the version of that instance, as registered.
pub const PEER_VERSION: &str = "tessera.peer.version";
/// Ours, on attempts after the first: `retry`, `hedge`, `fork`, or `transparent` where the one before was certainly not processed.
pub const ATTEMPT_KIND: &str = "tessera.attempt.kind";
/// Ours, on calls of more than one attempt: how many there were.
pub const ATTEMPTS: &str = "tessera.attempts";
/// Ours, on the spans of a change of the registry: its revision.
pub const REVISION: &str = "tessera.registry.revision";
/// Ours, on the spans of a change: by how many revisions a watcher was behind when it was told.
pub const WATCH_LAG: &str = "tessera.watch.lag";
/// Ours, on the spans of a change: whether an acknowledgement is owed for it.
pub const WATCH_TAKES_OUT: &str = "tessera.watch.takes_out";
/// Ours, on the first span of a trace that was recorded by a changing chance: what the chance was, above 0 to 1. A span stands for
/// 1 / this many.
pub const SAMPLING_PROBABILITY: &str = "tessera.sampling.probability";
/// Ours: the trace is not recorded, and this call is told all the same since it went wrong or took long. Its span was made at its
/// end; what happened beside it is not there.
pub const LATE: &str = "tessera.late";
/// Ours: which attempt of its call this is, from 1.
pub const ATTEMPT: &str = "tessera.attempt";
/// Ours: what stood in for the service, on a call that a fallback answered, and when it does: `fail: reply`.
pub const FALLBACK: &str = "tessera.fallback";

/// Ours, on the event `lb.pick` of a call: the id of the instance that was chosen.
pub const LB_CHOSEN: &str = "tessera.lb.chosen";
/// Ours, on `lb.pick`: the name of the policy that chose.
pub const LB_POLICY: &str = "tessera.lb.policy";
/// Ours, on `lb.pick`: what that policy goes by, in words.
pub const LB_CRITERION: &str = "tessera.lb.criterion";
/// Ours, on `lb.pick`: how many instances could have been chosen.
pub const LB_CANDIDATES: &str = "tessera.lb.candidates";
/// Ours, on `lb.pick`: the first of the candidates, with their weights and loads, the chosen one before the others.
pub const LB_CONSIDERED: &str = "tessera.lb.considered";
/// Ours, on `lb.pick`: those that the policy compared, and what the call would have cost with each.
pub const LB_COMPARED: &str = "tessera.lb.compared";
/// Ours, on `lb.pick`: how many instances could not be chosen, why, and some of their ids.
pub const LB_REMOVED: &str = "tessera.lb.removed";

/// Histogram of server call durations in seconds; exported to Prometheus as [`PROMETHEUS_SERVER_DURATION`].
pub const RPC_SERVER_CALL_DURATION: &str = "rpc.server.call.duration";
/// Histogram of client call durations in seconds; exported to Prometheus as [`PROMETHEUS_CLIENT_DURATION`].
pub const RPC_CLIENT_CALL_DURATION: &str = "rpc.client.call.duration";
/// [`RPC_SERVER_CALL_DURATION`] by OpenTelemetry's rules for Prometheus names.
pub const PROMETHEUS_SERVER_DURATION: &str = "rpc_server_call_duration_seconds";
/// [`RPC_CLIENT_CALL_DURATION`] by OpenTelemetry's rules for Prometheus names.
pub const PROMETHEUS_CLIENT_DURATION: &str = "rpc_client_call_duration_seconds";
/// gRFC A66's `grpc.client.attempt.duration` by the same rules.
pub const PROMETHEUS_ATTEMPT_DURATION: &str = "grpc_client_attempt_duration_seconds";
/// gRFC A66's `grpc.client.attempt.started` by the same rules (the encoder appends `_total`).
pub const PROMETHEUS_ATTEMPT_STARTED: &str = "grpc_client_attempt_started";
/// Bucket bounds in seconds that the conventions advise for both call durations.
pub const DURATION_BUCKETS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];
