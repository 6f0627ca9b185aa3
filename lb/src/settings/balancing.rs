//! The load balancing policy out of a config: gRPC's `loadBalancingConfig`, whose first known policy counts, with the settings
//! that its gRFCs and ours give each.

use std::num::NonZeroU32;

use http::HeaderName;

use super::{
    protection::{self, Words},
    reader::{Fields, Place, Reader},
};
use crate::{ConsistentHash, HashKey, LeastRequest, OutlierDetection, PeakEwma, Policy, Prequal};

/// What `loadBalancingConfig` comes to.
#[derive(Debug, Default)]
pub(super) struct Balancing {
    pub(super) policy: Option<Policy>,
    /// Of gRPC's `outlier_detection_experimental`, which stands around a policy.
    pub(super) outlier: Option<OutlierDetection>,
}

/// Of names that gRPC has not settled on: `least_request_experimental`, `ring_hash_experimental`, `outlier_detection_experimental`.
const UNSETTLED: &str = "_experimental";
const OUTLIERS: &str = "outlier_detection";

/// `[{"name": {settings}}, ...]`: the first that is known here (gRFC A24), so that one config can serve several kinds of clients.
pub(super) fn read_config(reader: &mut Reader<'_>, place: &Place<'_, '_>) -> Balancing {
    read_list(reader, place, false)
}

fn read_list(reader: &mut Reader<'_>, place: &Place<'_, '_>, is_child: bool) -> Balancing {
    let before = reader.count();
    let mut unknown = Vec::new();
    for item in reader.list(place) {
        let Some(mut fields) = reader.object(&item) else {
            continue;
        };
        let mut named = fields.take_rest();
        reader.finish(fields);
        let (Some((given, settings)), true) = (named.pop(), named.is_empty()) else {
            reader.wrong(&item, "must have exactly one policy, as {\"round_robin\": {}}");
            continue;
        };
        let name = given.strip_suffix(UNSETTLED).unwrap_or(given);
        if name == OUTLIERS {
            if is_child {
                reader.wrong(&item, "is within another one; once is enough");
                return Balancing::default();
            }
            return read_outliers(reader, &settings);
        }
        let Ok(policy) = name.parse::<Policy>() else {
            unknown.push(given);
            continue;
        };
        let Some(mut fields) = reader.object(&settings) else {
            return Balancing::default();
        };
        let policy = with_settings(reader, policy, &mut fields, &settings);
        reader.finish(fields);
        return Balancing { policy, outlier: None };
    }
    if reader.count() == before {
        reader.wrong(place, format!("has no policy that is known here, only {unknown:?}"));
    }
    Balancing::default()
}

/// gRFC A50, as it is.
fn read_outliers(reader: &mut Reader<'_>, place: &Place<'_, '_>) -> Balancing {
    let Some(mut fields) = reader.object(place) else {
        return Balancing::default();
    };
    let outlier = protection::read_outlier(reader, &mut fields, Words::Grpc);
    let child = fields.need(reader, "childPolicy");
    reader.finish(fields);
    let child = child.map(|place| read_list(reader, &place, true));
    Balancing {
        outlier,
        ..child.unwrap_or_default()
    }
}

/// The older form: a name. `loadBalancingConfig` counts more.
pub(super) fn read_name(reader: &mut Reader<'_>, place: &Place<'_, '_>) -> Option<Policy> {
    // In this form gRPC's documentation has them in any case.
    let name = reader.text(place)?.to_ascii_lowercase();
    name.parse()
        .map_err(|error| reader.wrong(place, format!("is unknown: {error}")))
        .ok()
}

fn with_settings(
    reader: &mut Reader<'_>,
    policy: Policy,
    fields: &mut Fields<'_, '_>,
    place: &Place<'_, '_>,
) -> Option<Policy> {
    let made = match policy {
        Policy::LeastRequest(_) => match fields.take("choiceCount") {
            // gRFC A48: more than ten are treated as ten.
            Some(place) => {
                let choices = reader.number::<u32>(&place, 2, u32::MAX)?.min(10);
                LeastRequest::try_new(choices).map(Policy::LeastRequest)
            }
            None => Ok(policy),
        },
        Policy::PeakEwma(default) => {
            let decay = fields.take("decay").map(|place| reader.positive(&place));
            let penalty = fields.take("penalty").map(|place| reader.positive(&place));
            let made = match decay {
                Some(decay) => PeakEwma::try_new(decay?),
                None => Ok(default),
            };
            let made = match penalty {
                Some(penalty) => {
                    let penalty = penalty?;
                    made.and_then(|made| made.penalty(penalty))
                }
                None => made,
            };
            made.map(Policy::PeakEwma)
        }
        Policy::ConsistentHash(default) => {
            let header = fields.take("requestHashHeader");
            let field = fields.take("requestHashField");
            let load = fields
                .take("boundedLoad")
                .map(|place| reader.number(&place, 1.05, 100.0));
            for ring in ["minRingSize", "maxRingSize"] {
                // gRFC A42. There is no ring here, and its size changes nothing that anybody relies on.
                fields.take(ring);
            }
            if let (Some(_), Some(field)) = (&header, &field) {
                reader.wrong(field, "contradicts requestHashHeader");
            }
            let mut made = default;
            if let Some(place) = header {
                let name = reader.text(&place)?.to_ascii_lowercase();
                let Ok(name) = HeaderName::try_from(name) else {
                    reader.wrong(&place, "is no name of a header");
                    return None;
                };
                made = ConsistentHash::by(HashKey::Header(name));
            } else if let Some(place) = field {
                let number = reader.number::<NonZeroU32>(&place, NonZeroU32::MIN, NonZeroU32::MAX)?;
                made = ConsistentHash::by(HashKey::Field(number));
            }
            match load {
                Some(load) => made.bounded_load(load?),
                None => Ok(made),
            }
            .map(Policy::ConsistentHash)
        }
        Policy::Prequal(default) => {
            let probes = fields
                .take("probesPerCall")
                .map(|place| reader.number(&place, 0.01, 3.0));
            let quantile = fields.take("hotQuantile").map(|place| reader.number(&place, 0.5, 0.99));
            let made = match probes {
                Some(probes) => Prequal::try_new(probes?),
                None => Ok(default),
            };
            match quantile {
                Some(quantile) => {
                    let quantile = quantile?;
                    made.and_then(|made| made.hot_quantile(quantile))
                }
                None => made,
            }
            .map(Policy::Prequal)
        }
        Policy::WeightedRoundRobin => {
            for of_reports in [
                "enableOobLoadReport",
                "oobReportingPeriod",
                "blackoutPeriod",
                "weightExpirationPeriod",
                "weightUpdatePeriod",
                "errorUtilizationPenalty",
                "metricNamesForComputingUtilization",
            ] {
                // gRFC A58 computes weights from load reports; here they are those of the registry.
                fields.take(of_reports);
            }
            Ok(policy)
        }
        other => Ok(other),
    };
    made.map_err(|error| reader.wrong(place, format!("cannot be: {error}")))
        .ok()
}
