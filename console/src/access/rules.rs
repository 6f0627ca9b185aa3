//! The table: what each RPC needs. One line for every RPC that a monitor serves; what is not here is refused. A test walks the
//! descriptor set: an RPC of the monitor without a line fails it, and so does a line without an RPC.

/// What an RPC needs, where callers are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Anybody may call it.
    Public,
    /// A service of the namespace, about itself: the API compares the body.
    Reporter,
    /// A service of the namespace, or an operator.
    Reader,
}

/// By path, in this order so that it can be searched.
pub(crate) const TABLE: &[(&str, Rule)] = &[
    // Tells whether a server serves; those who ask are probes without secrets.
    ("/grpc.health.v1.Health/Check", Rule::Public),
    ("/grpc.health.v1.Health/Watch", Rule::Public),
    (
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        Rule::Reader,
    ),
    (
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        Rule::Reader,
    ),
    ("/tessera.monitor.v1.MonitorService/Dependencies", Rule::Reader),
    ("/tessera.monitor.v1.MonitorService/Query", Rule::Reader),
    ("/tessera.monitor.v1.MonitorService/Report", Rule::Reporter),
    ("/tessera.monitor.v1.MonitorService/Top", Rule::Reader),
];

/// The rule of a path, exactly as it is written.
pub(crate) fn of(path: &str) -> Option<Rule> {
    let at = TABLE.binary_search_by(|(known, _)| (*known).cmp(path)).ok()?;
    Some(TABLE[at].1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;

    use super::*;

    #[test]
    fn every_rpc_has_a_rule_and_every_rule_an_rpc() {
        let set = prost_types::FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).expect("decodes");
        let files = set.file.iter().filter(|file| file.package() == "tessera.monitor.v1");
        let described: BTreeSet<String> = files
            .flat_map(|file| &file.service)
            .flat_map(|service| {
                let methods = service.method.iter();
                methods.map(|method| format!("/tessera.monitor.v1.{}/{}", service.name(), method.name()))
            })
            .collect();
        let ours = TABLE.iter().filter(|(path, _)| path.starts_with("/tessera."));
        let ruled: BTreeSet<String> = ours.map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(described, ruled);
        assert!(described.len() >= 4, "{described:?}");
    }

    #[test]
    fn the_table_can_be_searched() {
        assert!(TABLE.is_sorted_by(|one, next| one.0 < next.0), "in order, each once");
        for (path, rule) in TABLE {
            assert_eq!(of(path), Some(*rule));
            assert_eq!(of(&format!("{path}/")), None);
        }
    }
}
