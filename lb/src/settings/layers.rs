//! Which of several configs counts. Pure.
//!
//! For each setting by itself: the more specific entry first (method, service, all), among those the caller's before the
//! provider's, among the caller's the live one before the file, and that before code. So what an instance announces for a method
//! counts more than what its caller wrote for all methods: whoever wrote a service knows what its one slow method needs. Only
//! within one document gRPC's own rule holds: its most specific entry hides its wider ones, unless it inherits.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{ChannelRules, MethodSettings, Rules, Scope, Settings, service_of};
use crate::degrade::{Fallback, FallbackRule};

/// Who says something, those that count more first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    /// The caller, while it runs.
    Live,
    /// The caller's file.
    File,
    /// A config that the caller's code gives.
    Code,
    /// The builder's setters, for all methods.
    Setters,
    /// The instances.
    Provider,
}

/// An entry whose fallback can be used.
#[derive(Clone, Debug, Default)]
pub(super) struct Bound {
    pub(super) rules: Rules,
    pub(super) fallback: Option<Arc<Fallback>>,
    pub(super) inherits: bool,
}

/// All layers of a channel.
#[derive(Debug)]
pub(super) struct Layers {
    base: MethodSettings,
    layers: [BTreeMap<Scope, Bound>; 5],
    channel: [ChannelRules; 5],
    /// What came of it the last time.
    resolved: BTreeMap<Scope, (Said, Arc<MethodSettings>)>,
}

/// What all layers together say of a scope.
#[derive(Clone, Debug, Default, PartialEq)]
struct Said {
    rules: Rules,
    fallback: Option<FallbackRule>,
}

impl Layers {
    /// `base` has what holds where nobody says anything.
    pub(super) fn new(base: MethodSettings) -> Self {
        Self {
            base,
            layers: Default::default(),
            channel: Default::default(),
            resolved: BTreeMap::new(),
        }
    }

    pub(super) fn set(&mut self, layer: Layer, entries: BTreeMap<Scope, Bound>, channel: ChannelRules) {
        self.layers[layer as usize] = entries;
        self.channel[layer as usize] = channel;
    }

    /// What one of them says of the channel as a whole.
    pub(super) fn channel_mut(&mut self, layer: Layer) -> &mut ChannelRules {
        &mut self.channel[layer as usize]
    }

    /// Everything said, resolved. A scope of which the same is said as before keeps its very settings, and whatever is counted
    /// by them.
    pub(super) fn resolve(&mut self) -> Settings {
        let named: BTreeSet<&Scope> = self.layers.iter().flat_map(BTreeMap::keys).collect();
        let mut resolved = BTreeMap::new();
        for scope in named.into_iter().chain([&Scope::Every]) {
            let (said, fallback) = self.said_of(scope);
            let before = self.resolved.get(scope).filter(|(before, _)| *before == said);
            let settings = before.map_or_else(
                || {
                    let mut settings = said.rules.over(&self.base);
                    settings.fallback = fallback;
                    Arc::new(settings)
                },
                |(_, settings)| Arc::clone(settings),
            );
            resolved.insert(scope.clone(), (said, settings));
        }
        self.resolved = resolved;
        let mut channel = ChannelRules::default();
        for layer in &self.channel {
            channel.fill_from(layer);
        }
        let mut settings = Settings {
            channel: channel.resolved(),
            every: Arc::new(self.base.clone()),
            services: HashMap::new(),
            methods: HashMap::new(),
        };
        for (scope, (_, of_scope)) in &self.resolved {
            let of_scope = Arc::clone(of_scope);
            match scope {
                Scope::Every => settings.every = of_scope,
                Scope::Service(service) => drop(settings.services.insert(service.clone(), of_scope)),
                Scope::Method(path) => drop(settings.methods.insert(path.clone(), of_scope)),
            }
        }
        settings
    }

    fn said_of(&self, scope: &Scope) -> (Said, Option<Arc<Fallback>>) {
        let service = match scope {
            Scope::Every => None,
            Scope::Service(service) => Some(service.clone()),
            Scope::Method(path) => service_of(path).map(Into::into),
        };
        let levels = [
            matches!(scope, Scope::Method(_)).then(|| scope.clone()),
            service.map(Scope::Service),
            Some(Scope::Every),
        ];
        let mut hidden = [false; 5];
        let (mut rules, mut fallback) = (Rules::default(), None);
        for level in levels.into_iter().flatten() {
            for (layer, hidden) in self.layers.iter().zip(&mut hidden) {
                if let Some(bound) = layer.get(&level).filter(|_| !*hidden) {
                    rules.fill_from(&bound.rules);
                    fallback = fallback.or_else(|| bound.fallback.clone());
                    *hidden = !bound.inherits;
                }
            }
        }
        let said = Said {
            rules,
            fallback: fallback.as_ref().map(|fallback| fallback.rule().clone()),
        };
        (said, fallback)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ServiceConfig;

    fn base() -> MethodSettings {
        MethodSettings {
            ready_timeout: Duration::from_secs(3),
            call_timeout: None,
            ..MethodSettings::default()
        }
    }

    fn set(layers: &mut Layers, layer: Layer, text: &str) {
        let config: ServiceConfig = text.parse().expect("good");
        let bound = config.entries.clone().into_iter().map(|(scope, entry)| {
            let bound = Bound {
                rules: entry.rules,
                fallback: None,
                inherits: entry.inherits,
            };
            (scope, bound)
        });
        layers.set(layer, bound.collect(), config.channel);
    }

    /// A config of timeouts in seconds, by name.
    fn timeouts(entries: &[(&str, u64)]) -> String {
        let entries: Vec<String> = entries
            .iter()
            .map(|(name, seconds)| format!(r#"{{"name": [{name}], "timeout": "{seconds}s"}}"#))
            .collect();
        format!(r#"{{"methodConfig": [{}]}}"#, entries.join(","))
    }

    const EVERY: &str = "{}";
    const SERVICE: &str = r#"{"service": "p.S"}"#;
    const METHOD: &str = r#"{"service": "p.S", "method": "M"}"#;

    fn seconds(settings: &Settings, path: &str) -> Option<u64> {
        settings.of(path).call_timeout.map(|timeout| timeout.as_secs())
    }

    #[test]
    fn method_before_service_before_all() {
        let mut layers = Layers::new(base());
        assert_eq!(seconds(&layers.resolve(), "/p.S/M"), None);
        set(
            &mut layers,
            Layer::File,
            &timeouts(&[(EVERY, 1), (SERVICE, 2), (METHOD, 3)]),
        );
        let settings = layers.resolve();
        for (path, expected) in [
            ("/p.S/M", 3),
            ("/p.S/N", 2),
            ("/p.T/M", 1),
            ("/p.S", 1),
            ("/p.S/M/", 2),
            ("p.S/M", 1),
            ("", 1),
        ] {
            assert_eq!(seconds(&settings, path), Some(expected), "{path}");
        }
    }

    /// Every pair of what can be said of one method, by one order.
    #[test]
    fn specific_first_then_the_caller_then_what_is_live() {
        let layers = [Layer::Live, Layer::File, Layer::Code, Layer::Setters, Layer::Provider];
        let by_weight: Vec<(&str, Layer)> = [METHOD, SERVICE, EVERY]
            .into_iter()
            .flat_map(|name| layers.map(|layer| (name, layer)))
            .collect();
        for (more, heavy) in by_weight.iter().enumerate() {
            for (less, light) in by_weight.iter().enumerate().skip(more + 1) {
                if heavy.1 == light.1 {
                    continue;
                }
                let mut layers = Layers::new(base());
                set(&mut layers, heavy.1, &timeouts(&[(heavy.0, 1 + more as u64)]));
                set(&mut layers, light.1, &timeouts(&[(light.0, 1 + less as u64)]));
                assert_eq!(
                    seconds(&layers.resolve(), "/p.S/M"),
                    Some(1 + more as u64),
                    "{heavy:?} counts more than {light:?}"
                );
            }
        }
    }

    #[test]
    fn within_a_document_an_entry_hides_wider_ones_unless_it_inherits() {
        let document = |inherit: &str| {
            format!(
                r#"{{"methodConfig": [
                    {{"name": [{EVERY}], "timeout": "1s"}},
                    {{"name": [{METHOD}], "waitForReady": true{inherit}}}
                ]}}"#
            )
        };
        let mut layers = Layers::new(base());
        set(&mut layers, Layer::Live, &document(""));
        assert_eq!(seconds(&layers.resolve(), "/p.S/M"), None);
        // Other documents are not hidden.
        set(&mut layers, Layer::File, &timeouts(&[(EVERY, 7)]));
        assert_eq!(seconds(&layers.resolve(), "/p.S/M"), Some(7));
        set(&mut layers, Layer::Live, &document(r#", "tessera": {"inherit": true}"#));
        let settings = layers.resolve();
        assert_eq!(seconds(&settings, "/p.S/M"), Some(1));
        assert_eq!(settings.of("/p.S/M").ready_timeout, super::super::UNTIL_THE_DEADLINE);
        assert_eq!(settings.of("/p.S/N").ready_timeout, Duration::from_secs(3));
    }

    #[test]
    fn what_stays_the_same_keeps_its_very_settings() {
        let mut layers = Layers::new(base());
        set(&mut layers, Layer::File, &timeouts(&[(SERVICE, 1), (METHOD, 2)]));
        let before = layers.resolve();
        set(&mut layers, Layer::File, &timeouts(&[(SERVICE, 1), (METHOD, 3)]));
        let after = layers.resolve();
        assert!(Arc::ptr_eq(before.of("/p.S/N"), after.of("/p.S/N")));
        assert!(Arc::ptr_eq(before.of("/x"), after.of("/x")));
        assert!(!Arc::ptr_eq(before.of("/p.S/M"), after.of("/p.S/M")));
    }
}
