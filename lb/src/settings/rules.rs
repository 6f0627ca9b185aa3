//! What a service config may say of calls, and to which calls that applies. Values and how they are read; which of several
//! counts is decided in `layers`.

use std::time::Duration;

use super::{
    MethodSettings,
    modes::Attempts,
    protection,
    reader::{Fields, Place, Reader},
};
use crate::{CircuitBreaker, Mode, degrade::FallbackRule};

/// Which calls an entry is about, as the `name` list of a `methodConfig` has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Scope {
    /// `{}`: all of them.
    Every,
    /// `{"service": "pkg.Service"}`.
    Service(Box<str>),
    /// `{"service": "pkg.Service", "method": "Method"}`, as the path `/pkg.Service/Method`.
    Method(Box<str>),
}

/// What an entry says; what it leaves open is asked of the next.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rules {
    pub(crate) timeout: Option<Duration>,
    pub(crate) wait_for_ready: Option<bool>,
    pub(crate) ready_timeout: Option<Duration>,
    pub(crate) mode: Option<Mode>,
    /// The inner `None` switches it off.
    pub(crate) breaker: Option<Option<CircuitBreaker>>,
}

/// An entry of a document.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Entry {
    pub(crate) rules: Rules,
    pub(crate) fallback: Option<FallbackRule>,
    /// Whether what it leaves open is taken from the wider entries of its document. gRPC does not do that.
    pub(crate) inherits: bool,
}

impl Scope {
    /// The service and the method of a method's scope.
    pub(crate) fn method(&self) -> Option<(&str, &str)> {
        match self {
            Self::Method(path) => path.strip_prefix('/')?.split_once('/'),
            Self::Every | Self::Service(_) => None,
        }
    }
}

impl Rules {
    /// Takes what is open here from `next`, which counts less.
    pub(crate) fn fill_from(&mut self, next: &Self) {
        self.timeout = self.timeout.or(next.timeout);
        // Two answers to one question: whoever gives either has answered it.
        if self.ready_timeout.is_none() {
            self.wait_for_ready = self.wait_for_ready.or(next.wait_for_ready);
        }
        self.ready_timeout = self.ready_timeout.or(next.ready_timeout);
        if self.mode.is_none() {
            self.mode.clone_from(&next.mode);
        }
        self.breaker = self.breaker.or(next.breaker);
    }

    /// `base` with what is said here.
    pub(crate) fn over(&self, base: &MethodSettings) -> MethodSettings {
        let mut settings = base.clone();
        if let Some(ready_timeout) = self.ready_timeout {
            settings.ready_timeout = ready_timeout;
        }
        if self.wait_for_ready == Some(true) {
            settings.ready_timeout = super::UNTIL_THE_DEADLINE;
        }
        settings.call_timeout = self.timeout.or(settings.call_timeout);
        if let Some(mode) = &self.mode {
            settings.mode = mode.clone();
        }
        settings.breaker = self.breaker.unwrap_or(settings.breaker);
        settings
    }

    /// The settings of an entry of `methodConfig`: those that gRPC knows, and of those beside them, which may be missing, all but
    /// what concerns more than the calls themselves.
    pub(super) fn read(
        reader: &mut Reader<'_>,
        entry: &mut Fields<'_, '_>,
        additions: Option<&mut Fields<'_, '_>>,
    ) -> Self {
        let attempts = Attempts::read(reader, entry);
        let mut rules = Self::read_grpc(reader, entry);
        let mut mode = None;
        if let Some(additions) = additions {
            rules.read_additions(reader, additions);
            mode = additions.take("mode");
        }
        rules.mode = attempts.with_mode(reader, mode.as_ref());
        rules
    }

    fn read_grpc(reader: &mut Reader<'_>, entry: &mut Fields<'_, '_>) -> Self {
        let rules = Self {
            timeout: entry.take("timeout").and_then(|place| reader.positive(&place)),
            wait_for_ready: entry.take("waitForReady").and_then(|place| reader.flag(&place)),
            ..Self::default()
        };
        for unsupported in ["maxRequestMessageBytes", "maxResponseMessageBytes"] {
            if let Some(place) = entry.take(unsupported) {
                reader.wrong(
                    &place,
                    "is gRPC's, and not supported here: set it on the generated client",
                );
            }
        }
        rules
    }

    fn read_additions(&mut self, reader: &mut Reader<'_>, additions: &mut Fields<'_, '_>) {
        let ready_timeout = additions.take("readyTimeout");
        if let Some(place) = &ready_timeout {
            self.ready_timeout = reader.duration(place);
            if self.wait_for_ready == Some(true) {
                reader.wrong(place, "contradicts waitForReady, which waits until the deadline");
            }
        }
        self.breaker = additions
            .take("circuitBreaker")
            .and_then(|place| protection::read_breaker(reader, &place));
    }
}

/// The scopes that a `name` list names, each with its place.
pub(super) fn read_names<'n, 't>(reader: &mut Reader<'_>, names: &Place<'n, 't>) -> Vec<(Scope, Place<'n, 't>)> {
    let mut scopes = Vec::new();
    let places = reader.list(names);
    for place in places {
        let Some(mut fields) = reader.object(&place) else {
            continue;
        };
        let mut part = |reader: &mut Reader<'_>, key| {
            let part = fields.take(key)?;
            let text = reader.text(&part)?;
            // Protobuf's JSON form cannot tell an empty string from none.
            (!text.is_empty()).then(|| (text.to_owned(), part))
        };
        let (service, method) = (part(reader, "service"), part(reader, "method"));
        reader.finish(fields);
        for (name, part) in [&service, &method].into_iter().flatten() {
            if name.contains('/') {
                reader.wrong(part, format!("is {name:?}; a '/' has no place in it"));
            }
        }
        let scope = match (service, method) {
            (None, None) => Scope::Every,
            (Some((service, _)), None) => Scope::Service(service.into()),
            (Some((service, _)), Some((method, _))) => Scope::Method(format!("/{service}/{method}").into()),
            (None, Some((method, part))) => {
                reader.wrong(&part, format!("names the method {method} of no service"));
                continue;
            }
        };
        scopes.push((scope, place));
    }
    scopes
}
