//! From what a rule names to what it names: handlers, descriptors, other services. Done when a config is taken up, so that a
//! name that leads nowhere is an error then and not in the moment of need.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};

use prost_reflect::DescriptorPool;
use registry_client::{Discovery, Selector};

use super::{
    reply,
    rule::{FallbackRule, With},
    standin::{Act, Fallback},
};
use crate::{
    Channel,
    settings::{Problem, Scope},
};

/// Bytes that were given as descriptors and are none.
#[derive(Debug, thiserror::Error)]
#[error("these are no protobuf descriptors: {reason}")]
pub struct InvalidDescriptors {
    reason: String,
}

/// What rules can name.
#[derive(Debug, Default)]
pub(crate) struct Bindings {
    /// By the name that a rule gives as its handler.
    pub(crate) standins: BTreeMap<String, Act>,
    pub(crate) descriptors: Option<DescriptorPool>,
    /// Where other services are found, if the channel's own is.
    pub(crate) discovery: Option<Discovery>,
    pub(crate) tls: Option<tls::Client>,
    /// Channels that rules have opened, by service and version, kept while the channel lives: a config that comes back finds
    /// them connected.
    pub(crate) opened: Mutex<HashMap<(String, String), Channel>>,
}

impl Bindings {
    /// What the rule for those calls names.
    pub(crate) fn bind(&self, scope: &Scope, rule: &FallbackRule) -> Result<Fallback, Problem> {
        let wrong = |reason: String| Problem::new(rule.spot.clone(), reason);
        let act = match &rule.with {
            With::Reply(written) => {
                let frame = reply::encode(written, scope.method(), self.descriptors.as_ref()).map_err(|no_reply| {
                    let spot = rule.spot.clone();
                    let spot = match no_reply.within {
                        None => spot,
                        Some((line, column)) => spot.within(line, column),
                    };
                    Problem::new(spot, no_reply.reason)
                })?;
                Act::Reply(frame)
            }
            With::Handler(name) => {
                let known = self.standins.get(name).cloned();
                known.ok_or_else(|| {
                    let names: Vec<&str> = self.standins.keys().map(String::as_str).collect();
                    let names = if names.is_empty() {
                        "none".to_owned()
                    } else {
                        names.join(", ")
                    };
                    wrong(format!("is {name:?}, and the channel was given {names}"))
                })?
            }
            With::Service { service, version } => {
                let channel = self.open(service.as_deref(), version.as_deref());
                Act::Call(
                    channel.ok_or_else(|| wrong("needs a registry, and the channel has a fixed target".to_owned()))?,
                )
            }
        };
        Ok(Fallback::new(rule.clone(), act))
    }

    fn open(&self, service: Option<&str>, version: Option<&str>) -> Option<Channel> {
        let own = self.discovery.as_ref()?;
        let (service, version) = (service.unwrap_or(own.service()), version.unwrap_or_default());
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = opened
            .entry((service.to_owned(), version.to_owned()))
            .or_insert_with(|| {
                let discovery = own.beside(service).with_selector(Selector {
                    version: version.to_owned(),
                    ..Selector::default()
                });
                Channel::builder(discovery).tls(self.tls.clone()).build()
            });
        Some(channel.clone())
    }
}

/// The descriptors in an encoded `FileDescriptorSet`.
pub(crate) fn descriptors(set: &[u8]) -> Result<DescriptorPool, InvalidDescriptors> {
    DescriptorPool::decode(set).map_err(|error| InvalidDescriptors {
        reason: error.to_string(),
    })
}
