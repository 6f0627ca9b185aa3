//! The table: what each RPC needs. One line an RPC, for every RPC of this service and for what each server has beside its own.
//! What is not here is refused.
//!
//! Roles are all that it looks at. That an account is the caller's own is compared by the API (`access::own`), and that the
//! session is still open by the store. A test walks the descriptor set: an RPC without a line fails it.

use identity::{Line, Roles, Rule};

/// Those who have a wallet. Operators help people who cannot help themselves.
const BUYERS: Rule = Rule::Role(Roles::BUYER.and(Roles::OPERATOR));

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
    ("/tessera.user.v1.UserService/BuyTicket", BUYERS),
    // Whoever signs up has no account yet.
    ("/tessera.user.v1.UserService/CreateUser", Rule::Public),
    ("/tessera.user.v1.UserService/DeleteUser", Rule::Person),
    ("/tessera.user.v1.UserService/GetOrder", Rule::Person),
    // Public keys.
    ("/tessera.user.v1.UserService/GetSigningKeys", Rule::Public),
    ("/tessera.user.v1.UserService/GetUser", Rule::Person),
    ("/tessera.user.v1.UserService/ListOrders", Rule::Person),
    ("/tessera.user.v1.UserService/ListSessions", Rule::Person),
    ("/tessera.user.v1.UserService/ListStatement", Rule::Person),
    // The refresh token says who it is; the access token has ended by then.
    ("/tessera.user.v1.UserService/RefreshSession", Rule::Public),
    // Whose order it is; what has become of their roles since they bought does not matter.
    ("/tessera.user.v1.UserService/RefundOrder", Rule::Person),
    ("/tessera.user.v1.UserService/RevokeSessions", Rule::Person),
    ("/tessera.user.v1.UserService/SetRoles", OPERATORS),
    ("/tessera.user.v1.UserService/SignIn", Rule::Public),
    ("/tessera.user.v1.UserService/SignOut", Rule::Person),
    // There is no payment provider in this platform: whoever has a wallet fills it. With one, this is its service's to call.
    ("/tessera.user.v1.UserService/TopUp", BUYERS),
    ("/tessera.user.v1.UserService/UpdateProfile", Rule::Person),
    ("/tessera.user.v1.UserService/WatchOrder", Rule::Person),
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
        let served = ["tessera.user.v1", "tessera.events.v1"];
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
