//! What the environment says of sampling. Pure: the environment is an argument.
//!
//! | variable | means | default |
//! | --- | --- | --- |
//! | `OTEL_TRACES_SAMPLER` | OpenTelemetry's samplers by name | `parentbased_always_on` |
//! | `OTEL_TRACES_SAMPLER_ARG` | the share of `..._traceidratio`, 0 to 1 | 1 |
//! | `TESSERA_TRACES_PER_SECOND` | instead of them: so many traces a second that begin here; parents are followed | - |
//! | `TESSERA_TRACES_LATE_PER_SECOND` | so many calls a second that went wrong or took long are told though their trace is not recorded; 0 for none | 10 |
//! | `TESSERA_TRACES_SLOW_MS` | what is long, in milliseconds; 0 for never | 1000 |

use std::time::Duration;

/// How a trace that begins here is decided on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Root {
    All,
    None,
    Ratio(f64),
    PerSecond(f32),
}

/// See the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Settings {
    pub(super) root: Root,
    pub(super) follows: bool,
    pub(super) late_per_second: f64,
    /// Never, if there is none.
    pub(super) slow: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            root: Root::All,
            follows: true,
            late_per_second: 10.0,
            slow: Some(Duration::from_secs(1)),
        }
    }
}

impl Settings {
    /// Reads the variables through `get`. What cannot be honoured is told in `warnings`, and the default counts, as the specification
    /// wants it.
    pub(crate) fn read(get: &impl Fn(&str) -> Option<String>, warnings: &mut Vec<String>) -> Self {
        let get = |name: &str| {
            get(name)
                .map(|value| value.trim().to_owned())
                .filter(|value| !value.is_empty())
        };
        let mut number = |name: &str, from: f64, to: f64| {
            let value = get(name)?;
            let read = value.parse::<f64>().ok().filter(|number| (from..=to).contains(number));
            if read.is_none() {
                warnings.push(format!(
                    "{name}={value} is ignored; it takes a number from {from} to {to}"
                ));
            }
            read
        };
        let mut this = Self::default();
        let share = number("OTEL_TRACES_SAMPLER_ARG", 0.0, 1.0).unwrap_or(1.0);
        let target = number("TESSERA_TRACES_PER_SECOND", 0.001, 1e6);
        if let Some(late) = number("TESSERA_TRACES_LATE_PER_SECOND", 0.0, 1e6) {
            this.late_per_second = late;
        }
        if let Some(millis) = number("TESSERA_TRACES_SLOW_MS", 0.0, 1e9) {
            this.slow = (millis > 0.0).then(|| Duration::from_secs_f64(millis / 1e3));
        }
        let sampler = get("OTEL_TRACES_SAMPLER");
        match (&sampler, target) {
            (Some(sampler), Some(_)) => warnings.push(format!(
                "TESSERA_TRACES_PER_SECOND is ignored, since OTEL_TRACES_SAMPLER={sampler} is set, too"
            )),
            (None, Some(target)) => this.root = Root::PerSecond(target as f32),
            (_, None) => {}
        }
        let Some(sampler) = sampler else { return this };
        (this.root, this.follows) = match sampler.as_str() {
            "always_on" => (Root::All, false),
            "always_off" => (Root::None, false),
            "traceidratio" => (Root::Ratio(share), false),
            "parentbased_always_on" => (Root::All, true),
            "parentbased_always_off" => (Root::None, true),
            "parentbased_traceidratio" => (Root::Ratio(share), true),
            other => {
                warnings.push(format!(
                    "OTEL_TRACES_SAMPLER={other} is not supported (always_on, always_off, traceidratio, and those with \
                     parentbased_ before them); parentbased_always_on is used"
                ));
                (Root::All, true)
            }
        };
        this
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_is_read_or_told() {
        let default = Settings::default();
        for (pairs, expected, warned) in [
            (vec![], default, 0),
            (vec![("OTEL_TRACES_SAMPLER", " ")], default, 0),
            (
                vec![("OTEL_TRACES_SAMPLER", "always_off")],
                Settings {
                    root: Root::None,
                    follows: false,
                    ..default
                },
                0,
            ),
            (
                vec![
                    ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
                    ("OTEL_TRACES_SAMPLER_ARG", "0.01"),
                ],
                Settings {
                    root: Root::Ratio(0.01),
                    ..default
                },
                0,
            ),
            (
                vec![
                    ("OTEL_TRACES_SAMPLER", "traceidratio"),
                    ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
                ],
                Settings {
                    root: Root::Ratio(1.0),
                    follows: false,
                    ..default
                },
                1,
            ),
            (vec![("OTEL_TRACES_SAMPLER", "jaeger_remote")], default, 1),
            (
                vec![("TESSERA_TRACES_PER_SECOND", "20")],
                Settings {
                    root: Root::PerSecond(20.0),
                    ..default
                },
                0,
            ),
            (
                vec![
                    ("TESSERA_TRACES_PER_SECOND", "20"),
                    ("OTEL_TRACES_SAMPLER", "parentbased_always_on"),
                ],
                default,
                1,
            ),
            (vec![("TESSERA_TRACES_PER_SECOND", "many")], default, 1),
            (
                vec![("TESSERA_TRACES_LATE_PER_SECOND", "0"), ("TESSERA_TRACES_SLOW_MS", "0")],
                Settings {
                    late_per_second: 0.0,
                    slow: None,
                    ..default
                },
                0,
            ),
            (
                vec![("TESSERA_TRACES_SLOW_MS", "250")],
                Settings {
                    slow: Some(Duration::from_millis(250)),
                    ..default
                },
                0,
            ),
            (vec![("TESSERA_TRACES_SLOW_MS", "-1")], default, 1),
        ] {
            let mut warnings = Vec::new();
            let get = |name: &str| {
                let found = pairs.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(Settings::read(&get, &mut warnings), expected, "{pairs:?}");
            assert_eq!(warnings.len(), warned, "{pairs:?}: {warnings:?}");
        }
    }
}
