//! The table: what each RPC needs. One line an RPC, for every RPC of every service in the descriptor set, and for what each
//! server has beside its own. What is not here is refused.
//!
//! A test walks the descriptor set: an RPC without a line fails it, and so does a line without an RPC. A registry that serves a
//! method without a line does not start.

use super::scope::Kind;

/// What an RPC needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Anybody may call it.
    Public,
    /// A scope of this kind, anywhere: the body names nothing that could be compared. Why that is enough is said beside it.
    Any(Kind),
    /// A scope of this kind that covers what these fields of the body name. The gate looks at the kind; the API at the body,
    /// before anything happens.
    Named(Kind, Fields),
    /// A `register` scope that covers what the lease keeps, which this field of the body names. The gate looks at the kind; the
    /// catalog at the lease, before anything happens (`access::Bounds`).
    Lease(&'static str),
    /// To operate every namespace.
    Everywhere,
    /// Not served by a registry; whoever serves it decides who may call it.
    Elsewhere,
}

/// The fields of a request that say what it is about, by their paths from its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fields {
    /// Of the namespace.
    pub(crate) namespace: &'static str,
    /// Of the service, where the scope is about one.
    pub(crate) service: Option<&'static str>,
}

const NAMESPACE: Fields = Fields {
    namespace: "namespace",
    service: None,
};
const SERVICE: Fields = Fields {
    namespace: "namespace",
    service: Some("service"),
};
/// Of each of a list.
const INSTANCES: Fields = Fields {
    namespace: "instances.namespace",
    service: Some("instances.service"),
};
const INSTANCE: Fields = Fields {
    namespace: "instance.namespace",
    service: Some("instance.service"),
};
const GOVERNED: Fields = Fields {
    namespace: "instance.namespace",
    service: None,
};

/// A method and its rule.
pub(crate) type Line = (&'static str, Rule);

/// By path, in this order so that it can be searched.
pub(crate) const TABLE: &[Line] = &[
    // Tells whether a server serves, and nothing of what is registered; those who ask are probes without secrets.
    ("/grpc.health.v1.Health/Check", Rule::Public),
    ("/grpc.health.v1.Health/Watch", Rule::Public),
    // Describes the wire, which is public in source; but nobody without business here is helped to find their way.
    (
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        Rule::Any(Kind::Read),
    ),
    (
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        Rule::Any(Kind::Read),
    ),
    // What the services let in is said in their own `src/access/rules.rs`.
    ("/tessera.events.v1.EventsService/DropDeadLetter", Rule::Elsewhere),
    ("/tessera.events.v1.EventsService/GetDeadLetter", Rule::Elsewhere),
    ("/tessera.events.v1.EventsService/ListDeadLetters", Rule::Elsewhere),
    ("/tessera.events.v1.EventsService/ReplayDeadLetters", Rule::Elsewhere),
    // What the monitor centre lets in is said in `console/src/access/rules.rs`.
    ("/tessera.monitor.v1.MonitorService/Dependencies", Rule::Elsewhere),
    ("/tessera.monitor.v1.MonitorService/Query", Rule::Elsewhere),
    ("/tessera.monitor.v1.MonitorService/Report", Rule::Elsewhere),
    ("/tessera.monitor.v1.MonitorService/Top", Rule::Elsewhere),
    // Hashes of every lease's secret, of all namespaces.
    ("/tessera.registry.v1.GovernanceService/Backup", Rule::Everywhere),
    (
        "/tessera.registry.v1.GovernanceService/Drain",
        Rule::Named(Kind::Operate, GOVERNED),
    ),
    // It tells the addresses of those who registered and who watch.
    (
        "/tessera.registry.v1.GovernanceService/ExplainInstance",
        Rule::Named(Kind::Operate, GOVERNED),
    ),
    (
        "/tessera.registry.v1.GovernanceService/SetWeight",
        Rule::Named(Kind::Operate, GOVERNED),
    ),
    (
        "/tessera.registry.v1.GovernanceService/Undrain",
        Rule::Named(Kind::Operate, GOVERNED),
    ),
    // A watch is named by 128 random bits, which those who drain are told as well. Taken is what comes over the connection of the
    // watch or from the same principal: the board looks at that (`hub::Holder`).
    ("/tessera.registry.v1.RegistryService/AckWatch", Rule::Any(Kind::Read)),
    // Whoever drains an instance of their own asks who has heard of it. Operators are told by Drain.
    (
        "/tessera.registry.v1.RegistryService/AwaitWatchers",
        Rule::Named(Kind::Register, SERVICE),
    ),
    // Leases are named by id and secret: the secret says that the lease is one's own, and the scope that one may have such a one.
    (
        "/tessera.registry.v1.RegistryService/Deregister",
        Rule::Lease("lease_id"),
    ),
    (
        "/tessera.registry.v1.RegistryService/GetInstance",
        Rule::Named(Kind::Read, NAMESPACE),
    ),
    (
        "/tessera.registry.v1.RegistryService/KeepAlive",
        Rule::Lease("renewals.lease_id"),
    ),
    (
        "/tessera.registry.v1.RegistryService/ListInstances",
        Rule::Named(Kind::Read, NAMESPACE),
    ),
    (
        "/tessera.registry.v1.RegistryService/ListServices",
        Rule::Named(Kind::Read, NAMESPACE),
    ),
    (
        "/tessera.registry.v1.RegistryService/Register",
        Rule::Named(Kind::Register, INSTANCES),
    ),
    ("/tessera.registry.v1.RegistryService/Renew", Rule::Lease("lease_id")),
    (
        "/tessera.registry.v1.RegistryService/UpdateInstance",
        Rule::Named(Kind::Register, INSTANCE),
    ),
    (
        "/tessera.registry.v1.RegistryService/Watch",
        Rule::Named(Kind::Read, NAMESPACE),
    ),
    // Customers and their sessions are those services' own business.
    ("/tessera.ticket.v1.TicketService/CheckTicket", Rule::Elsewhere),
    ("/tessera.ticket.v1.TicketService/ConfirmHold", Rule::Elsewhere),
    ("/tessera.ticket.v1.TicketService/CreateEvent", Rule::Elsewhere),
    ("/tessera.ticket.v1.TicketService/GetEvent", Rule::Elsewhere),
    ("/tessera.ticket.v1.TicketService/GetSales", Rule::Elsewhere),
    ("/tessera.ticket.v1.TicketService/GetSeatMap", Rule::Elsewhere),
    ("/tessera.ticket.v1.TicketService/GetTicketKeys", Rule::Elsewhere),
    ("/tessera.ticket.v1.TicketService/HoldSeats", Rule::Elsewhere),
    ("/tessera.ticket.v1.TicketService/ListEvents", Rule::Elsewhere),
    ("/tessera.ticket.v1.TicketService/ListSeats", Rule::Elsewhere),
    ("/tessera.ticket.v1.TicketService/RefundTickets", Rule::Elsewhere),
    ("/tessera.ticket.v1.TicketService/ReleaseHold", Rule::Elsewhere),
    ("/tessera.ticket.v1.TicketService/SearchEvents", Rule::Elsewhere),
    ("/tessera.ticket.v1.TicketService/WaitInLine", Rule::Elsewhere),
    ("/tessera.ticket.v1.TicketService/WatchAvailability", Rule::Elsewhere),
    ("/tessera.user.v1.UserService/BuyTicket", Rule::Elsewhere),
    ("/tessera.user.v1.UserService/CreateUser", Rule::Elsewhere),
    ("/tessera.user.v1.UserService/DeleteUser", Rule::Elsewhere),
    ("/tessera.user.v1.UserService/GetOrder", Rule::Elsewhere),
    ("/tessera.user.v1.UserService/GetSigningKeys", Rule::Elsewhere),
    ("/tessera.user.v1.UserService/GetUser", Rule::Elsewhere),
    ("/tessera.user.v1.UserService/ListOrders", Rule::Elsewhere),
    ("/tessera.user.v1.UserService/ListSessions", Rule::Elsewhere),
    ("/tessera.user.v1.UserService/ListStatement", Rule::Elsewhere),
    ("/tessera.user.v1.UserService/RefreshSession", Rule::Elsewhere),
    ("/tessera.user.v1.UserService/RefundOrder", Rule::Elsewhere),
    ("/tessera.user.v1.UserService/RevokeSessions", Rule::Elsewhere),
    ("/tessera.user.v1.UserService/SetRoles", Rule::Elsewhere),
    ("/tessera.user.v1.UserService/SignIn", Rule::Elsewhere),
    ("/tessera.user.v1.UserService/SignOut", Rule::Elsewhere),
    ("/tessera.user.v1.UserService/TopUp", Rule::Elsewhere),
    ("/tessera.user.v1.UserService/UpdateProfile", Rule::Elsewhere),
    ("/tessera.user.v1.UserService/WatchOrder", Rule::Elsewhere),
];

/// The methods that answer with a stream, which may outlive what it was opened with.
const STREAMS: &[&str] = &[
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/tessera.registry.v1.GovernanceService/Backup",
    "/tessera.registry.v1.RegistryService/KeepAlive",
    "/tessera.registry.v1.RegistryService/Watch",
];

/// Whether the method answers with a stream.
pub(crate) fn streams(path: &str) -> bool {
    STREAMS.contains(&path)
}

/// The rule of a path, exactly as it is written.
pub(crate) fn of(path: &str) -> Option<Rule> {
    let at = TABLE.binary_search_by(|(known, _)| (*known).cmp(path)).ok()?;
    Some(TABLE[at].1)
}

#[cfg(test)]
mod tests;
