//! The table beside the descriptor set: neither has what the other lacks, and fields that a rule names are there.

use std::collections::BTreeSet;

use prost_reflect::{Kind as FieldKind, MessageDescriptor};

use super::*;
use crate::fixtures::descriptors::{methods, path};

/// Row 47 of the fault plan: whoever adds an RPC decides here who may call it, or the build's tests fail.
#[test]
fn every_rpc_has_a_rule_and_every_rule_an_rpc() {
    let described: BTreeSet<String> = methods().iter().map(path).collect();
    let ruled: BTreeSet<String> = TABLE.iter().map(|(path, _)| (*path).to_owned()).collect();
    let unruled: Vec<_> = described.difference(&ruled).collect();
    assert!(
        unruled.is_empty(),
        "add a line to access/rules.rs for each of {unruled:?}"
    );
    let idle: Vec<_> = ruled.difference(&described).collect();
    assert!(idle.is_empty(), "these are no RPCs any more: {idle:?}");
}

#[test]
fn the_table_can_be_searched() {
    assert!(
        TABLE.is_sorted_by(|one, next| one.0 < next.0),
        "in the order of the paths, each once"
    );
    for (path, rule) in TABLE {
        assert_eq!(of(path), Some(*rule), "{path}");
        for wrong in [
            format!("{path}/"),
            format!("/{path}"),
            format!("{path}?x"),
            path.to_lowercase(),
            path[1..].to_owned(),
            path.replace("/", "//"),
        ] {
            assert_eq!(of(&wrong), None, "{wrong}");
        }
    }
    assert_eq!(of(""), None);
}

#[test]
fn streams_are_those_that_the_descriptor_set_calls_so() {
    for method in methods() {
        let path = path(&method);
        if of(&path) != Some(Rule::Elsewhere) {
            assert_eq!(streams(&path), method.is_server_streaming(), "{path}");
        }
    }
}

/// A request that names a namespace or a lease must not be let through by a rule that does not look at it.
#[test]
fn rules_name_fields_that_are_there_and_miss_none() {
    for method in methods() {
        let path = path(&method);
        let Some(rule) = of(&path) else { continue };
        match rule {
            Rule::Named(_, fields) => {
                for field in [Some(fields.namespace), fields.service].into_iter().flatten() {
                    assert!(has(&method.input(), field), "{path}: {field}");
                }
            }
            Rule::Lease(field) => assert!(has(&method.input(), field), "{path}: {field}"),
            Rule::Elsewhere => {}
            Rule::Public | Rule::Any(_) | Rule::Everywhere => {
                for field in [
                    "namespace",
                    "instance.namespace",
                    "instances.namespace",
                    "lease_id",
                    "renewals.lease_id",
                ] {
                    assert!(
                        !has(&method.input(), field),
                        "{path} names {field}, which its rule ignores"
                    );
                }
            }
        }
    }
}

fn has(message: &MessageDescriptor, path: &str) -> bool {
    let (field, rest) = path
        .split_once('.')
        .map_or((path, None), |(field, rest)| (field, Some(rest)));
    let Some(field) = message.get_field_by_name(field) else {
        return false;
    };
    match (field.kind(), rest) {
        (FieldKind::Message(message), Some(rest)) => has(&message, rest),
        (FieldKind::String, None) => true,
        _ => false,
    }
}
