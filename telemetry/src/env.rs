//! The `OTEL_*` variables that the Rust SDK leaves to us, read once. Pure: the environment is an argument.
//!
//! `sampling::settings` reads the samplers. The SDK itself reads `OTEL_BSP_*`, the span limits, `OTEL_RESOURCE_ATTRIBUTES` and everything that starts
//! with `OTEL_EXPORTER_OTLP_`; none of that is repeated here.

use crate::{propagation::Propagators, sampling};

/// What the environment asks for.
#[derive(Debug, PartialEq)]
pub(crate) struct Environment {
    pub(crate) traces: Traces,
    pub(crate) propagators: Propagators,
    pub(crate) sampling: sampling::Settings,
    /// `OTEL_SERVICE_NAME`, or `service.name` within `OTEL_RESOURCE_ATTRIBUTES`.
    pub(crate) names_service: bool,
    /// What cannot be honoured, to be logged once the subscriber stands.
    pub(crate) warnings: Vec<String>,
}

/// Where spans go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Traces {
    Off,
    /// To the collector that the SDK's own variables name; the endpoint is repeated for messages.
    Otlp {
        endpoint: String,
    },
}

impl Environment {
    /// Reads the variables through `get`; by the specification an empty value means unset.
    pub(crate) fn read(get: impl Fn(&str) -> Option<String>) -> Self {
        let get = |name: &str| {
            get(name)
                .map(|value| value.trim().to_owned())
                .filter(|value| !value.is_empty())
        };
        let mut warnings = Vec::new();
        let traces = Self::traces(&get, &mut warnings);
        let propagators = match get("OTEL_PROPAGATORS") {
            Some(list) => Self::propagators(&list, &mut warnings),
            None => Propagators::DEFAULT,
        };
        let names_service = get("OTEL_SERVICE_NAME").is_some()
            || get("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|list| {
                list.split(',').any(|pair| {
                    pair.split_once('=')
                        .is_some_and(|(key, _)| key.trim() == "service.name")
                })
            });
        let sampling = sampling::Settings::read(&get, &mut warnings);
        Self {
            traces,
            propagators,
            sampling,
            names_service,
            warnings,
        }
    }

    fn traces(get: &impl Fn(&str) -> Option<String>, warnings: &mut Vec<String>) -> Traces {
        // Only the word "true" disables; the specification wants anything else read as false, with a warning.
        match get("OTEL_SDK_DISABLED").map(|value| value.to_ascii_lowercase()) {
            Some(value) if value == "true" => return Traces::Off,
            Some(value) if value != "false" => {
                warnings.push(format!(
                    "OTEL_SDK_DISABLED={value} is read as false; it takes true or false"
                ));
            }
            _ => {}
        }
        let endpoint = get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| get("OTEL_EXPORTER_OTLP_ENDPOINT"));
        match get("OTEL_TRACES_EXPORTER").as_deref() {
            Some("none") => return Traces::Off,
            Some("otlp") if endpoint.is_none() => {
                warnings
                    .push("OTEL_TRACES_EXPORTER=otlp needs OTEL_EXPORTER_OTLP_ENDPOINT; no traces are exported".into());
            }
            Some("otlp") | None => {}
            Some(other) => {
                warnings.push(format!(
                    "OTEL_TRACES_EXPORTER={other} is not supported (otlp or none); no traces are exported"
                ));
                return Traces::Off;
            }
        }
        let Some(endpoint) = endpoint else {
            return Traces::Off;
        };
        let protocol = get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| get("OTEL_EXPORTER_OTLP_PROTOCOL"));
        if let Some(protocol) = protocol.filter(|protocol| protocol != "grpc") {
            warnings.push(format!("OTLP protocol {protocol} is not supported; grpc is used"));
        }
        Traces::Otlp { endpoint }
    }

    fn propagators(list: &str, warnings: &mut Vec<String>) -> Propagators {
        let mut chosen = Propagators::NONE;
        for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match name {
                "tracecontext" => chosen.trace_context = true,
                "baggage" => chosen.baggage = true,
                "b3" => chosen.b3 = true,
                "b3multi" => chosen.b3_multi = true,
                "none" => {}
                other => warnings.push(format!(
                    "OTEL_PROPAGATORS: {other} is not supported (tracecontext, baggage, b3, b3multi, none)"
                )),
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Environment {
        Environment::read(|name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    fn otlp(endpoint: &str) -> Traces {
        Traces::Otlp {
            endpoint: endpoint.to_owned(),
        }
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");

    #[test]
    fn an_empty_environment_exports_nothing_and_says_nothing() {
        let read = read(&[]);
        assert_eq!(
            read,
            Environment {
                traces: Traces::Off,
                propagators: Propagators::DEFAULT,
                sampling: sampling::Settings::default(),
                names_service: false,
                warnings: vec![]
            }
        );
    }

    #[test]
    fn an_endpoint_turns_export_on_and_the_switches_turn_it_off() {
        for (variables, expected, warnings) in [
            (vec![ENDPOINT], otlp("http://collector:4317"), 0),
            (vec![("OTEL_EXPORTER_OTLP_ENDPOINT", " ")], Traces::Off, 0),
            (
                vec![ENDPOINT, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:1")],
                otlp("http://t:1"),
                0,
            ),
            (
                vec![ENDPOINT, ("OTEL_TRACES_EXPORTER", "otlp")],
                otlp("http://collector:4317"),
                0,
            ),
            (vec![ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")], Traces::Off, 0),
            (vec![ENDPOINT, ("OTEL_TRACES_EXPORTER", "zipkin")], Traces::Off, 1),
            (vec![("OTEL_TRACES_EXPORTER", "otlp")], Traces::Off, 1),
            (vec![ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE")], Traces::Off, 0),
            (
                vec![ENDPOINT, ("OTEL_SDK_DISABLED", "false")],
                otlp("http://collector:4317"),
                0,
            ),
            (
                vec![ENDPOINT, ("OTEL_SDK_DISABLED", "1")],
                otlp("http://collector:4317"),
                1,
            ),
            (
                vec![ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")],
                otlp("http://collector:4317"),
                1,
            ),
            (
                vec![ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
                otlp("http://collector:4317"),
                0,
            ),
        ] {
            let read = read(&variables);
            assert_eq!(read.traces, expected, "{variables:?}");
            assert_eq!(read.warnings.len(), warnings, "{variables:?}: {:?}", read.warnings);
        }
    }

    #[test]
    fn propagators_are_chosen_by_name() {
        let chosen = |trace_context, baggage, b3, b3_multi| Propagators {
            trace_context,
            baggage,
            b3,
            b3_multi,
        };
        for (list, expected, warnings) in [
            ("tracecontext,baggage", chosen(true, true, false, false), 0),
            ("tracecontext", chosen(true, false, false, false), 0),
            (" baggage ", chosen(false, true, false, false), 0),
            ("none", Propagators::NONE, 0),
            ("b3,tracecontext", chosen(true, false, true, false), 0),
            ("b3multi,baggage", chosen(false, true, false, true), 0),
            ("jaeger,b3", chosen(false, false, true, false), 1),
        ] {
            let read = read(&[("OTEL_PROPAGATORS", list)]);
            assert_eq!(read.propagators, expected, "{list}");
            assert_eq!(read.warnings.len(), warnings, "{list}");
        }
    }

    #[test]
    fn the_environment_may_name_the_service() {
        assert!(read(&[("OTEL_SERVICE_NAME", "x")]).names_service);
        assert!(read(&[("OTEL_RESOURCE_ATTRIBUTES", "a=b, service.name = x")]).names_service);
        assert!(!read(&[("OTEL_RESOURCE_ATTRIBUTES", "service.namespace=x")]).names_service);
    }
}
