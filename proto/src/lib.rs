//! The wire: Tessera's protobuf packages as Rust types, clients and servers. No logic lives here.
//!
//! The `.proto` files under `proto/tessera/` are the contract: their comments give units, ranges, defaults and errors.
//! [`FILE_DESCRIPTOR_SET`] holds all of them with their imports, so that server reflection can answer anything.
#![allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]

mod redacted;

/// Values that more than one package speaks of.
pub mod common {
    /// Package `tessera.common.v1`.
    pub mod v1 {
        tonic::include_proto!("tessera.common.v1");
    }
}

/// What became of events.
pub mod events {
    /// Package `tessera.events.v1`.
    pub mod v1 {
        tonic::include_proto!("tessera.events.v1");
    }
}

/// The monitor centre.
pub mod monitor {
    /// Package `tessera.monitor.v1`.
    pub mod v1 {
        tonic::include_proto!("tessera.monitor.v1");
    }
}

/// The service registry.
pub mod registry {
    /// Package `tessera.registry.v1`.
    pub mod v1 {
        tonic::include_proto!("tessera.registry.v1");
    }
}

/// Events and seats.
pub mod ticket {
    /// Package `tessera.ticket.v1`.
    pub mod v1 {
        tonic::include_proto!("tessera.ticket.v1");
    }
}

/// Accounts, wallets and orders.
pub mod user {
    /// Package `tessera.user.v1`.
    pub mod v1 {
        tonic::include_proto!("tessera.user.v1");
    }
}

/// All packages and what they import, as an encoded `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tessera.bin"));

#[cfg(test)]
mod tests {
    use prost::Message as _;

    #[test]
    fn the_descriptor_set_holds_every_package_and_its_imports() {
        let set = prost_types::FileDescriptorSet::decode(super::FILE_DESCRIPTOR_SET).expect("decodes");
        let names: Vec<&str> = set.file.iter().map(prost_types::FileDescriptorProto::name).collect();
        for name in [
            "google/protobuf/timestamp.proto",
            "tessera/common/v1/money.proto",
            "tessera/events/v1/events.proto",
            "tessera/monitor/v1/monitor.proto",
            "tessera/registry/v1/registry.proto",
            "tessera/registry/v1/governance.proto",
            "tessera/ticket/v1/ticket.proto",
            "tessera/user/v1/user.proto",
        ] {
            assert!(names.contains(&name), "{name} is missing from {names:?}");
        }
    }
}
