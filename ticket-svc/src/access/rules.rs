//! The table: what each RPC needs. One line an RPC, for every RPC of this service and for what each server has beside its own.
//! What is not here is refused.
//!
//! Roles are all that it looks at. Whose event it is, is compared by the API. A test walks the descriptor set: an RPC without a
//! line fails it.

use identity::{Line, Roles, Rule};

/// Those who make events, each their own, and operators.
const ORGANISERS: Rule = Rule::Role(Roles::ORGANISER.and(Roles::OPERATOR));

/// Another service of the platform: the user service, which takes the money. Buyers hold seats by buying: a hold without an
/// order behind it would keep seats from others for nothing.
const SERVICES: Rule = Rule::Role(Roles::SERVICE);

/// Those who run the platform.
const OPERATORS: Rule = Rule::Role(Roles::OPERATOR);

/// By path, in this order so that it can be searched.
pub(crate) const TABLE: &[Line] = &[
    // Tells whether a server serves, and nothing else; those who ask are probes without secrets.
    ("/grpc.health.v1.Health/Check", Rule::Public),
    ("/grpc.health.v1.Health/Watch", Rule::Public),
    // Describes the wire, which is public in source.
    (
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        Rule::Public,
    ),
    (
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        Rule::Public,
    ),
    // Bodies of events are of all orders and holds, and what is dropped nobody hears of.
    ("/tessera.events.v1.EventsService/DropDeadLetter", OPERATORS),
    ("/tessera.events.v1.EventsService/GetDeadLetter", OPERATORS),
    ("/tessera.events.v1.EventsService/ListDeadLetters", OPERATORS),
    ("/tessera.events.v1.EventsService/ReplayDeadLetters", OPERATORS),
    // Who is at the door works for the organiser.
    ("/tessera.ticket.v1.TicketService/CheckTicket", ORGANISERS),
    ("/tessera.ticket.v1.TicketService/ConfirmHold", SERVICES),
    ("/tessera.ticket.v1.TicketService/CreateEvent", ORGANISERS),
    // What is on sale is public: whoever buys looks first and signs in later.
    ("/tessera.ticket.v1.TicketService/GetEvent", Rule::Public),
    ("/tessera.ticket.v1.TicketService/GetSales", ORGANISERS),
    ("/tessera.ticket.v1.TicketService/GetSeatMap", Rule::Public),
    // Their public halves.
    ("/tessera.ticket.v1.TicketService/GetTicketKeys", Rule::Public),
    ("/tessera.ticket.v1.TicketService/HoldSeats", SERVICES),
    ("/tessera.ticket.v1.TicketService/ListEvents", Rule::Public),
    ("/tessera.ticket.v1.TicketService/ListSeats", Rule::Public),
    // Whoever took the money gives it back.
    ("/tessera.ticket.v1.TicketService/RefundTickets", SERVICES),
    ("/tessera.ticket.v1.TicketService/ReleaseHold", SERVICES),
    ("/tessera.ticket.v1.TicketService/SearchEvents", Rule::Public),
    // For oneself.
    ("/tessera.ticket.v1.TicketService/WaitInLine", Rule::Person),
    ("/tessera.ticket.v1.TicketService/WatchAvailability", Rule::Public),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost_types::{FileDescriptorProto, FileDescriptorSet};

    use super::*;

    /// Whoever adds an RPC decides here who may call it, or this fails.
    #[test]
    fn every_rpc_has_a_rule_and_every_rule_an_rpc() {
        let set: FileDescriptorSet = prost::Message::decode(proto::FILE_DESCRIPTOR_SET).expect("decodes");
        let served = ["tessera.ticket.v1", "tessera.events.v1"];
        let files = set.file.iter().filter(|file| served.contains(&file.package()));
        let paths = |file: &FileDescriptorProto| {
            let mut paths = Vec::new();
            for service in &file.service {
                let named = |method: &str| format!("/{}.{}/{method}", file.package(), service.name());
                paths.extend(service.method.iter().map(|method| named(method.name())));
            }
            paths
        };
        let described: BTreeSet<String> = files.flat_map(paths).collect();
        let ours = TABLE.iter().filter(|(path, _)| path.starts_with("/tessera."));
        let ruled: BTreeSet<String> = ours.map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(
            described, ruled,
            "add a line to access/rules.rs for each RPC, and none for others"
        );
    }

    #[test]
    fn the_table_can_be_searched() {
        assert!(TABLE.is_sorted_by(|one, next| one.0 < next.0), "in order, each once");
        for (path, rule) in TABLE {
            assert_eq!(identity::gate::rule(TABLE, path), Some(*rule));
        }
    }
}
