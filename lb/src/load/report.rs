//! What an instance says of its load, at the end of a response: gRPC's ORCA report (gRFC A51), of which Prequal's two numbers are
//! read. Pure.

use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::metadata::MetadataMap;

use crate::protobuf::fields;

/// The trailer that carries an `xds.data.orca.v3.OrcaLoadReport`.
const REPORT: &str = "endpoint-load-metrics-bin";

/// The header by which a caller asks for reports: nobody else pays for them.
const ASK: HeaderName = HeaderName::from_static("tessera-load-report");

/// `named_metrics` of the report, a map from string to double.
const NAMED_METRICS: u64 = 8;

/// What an instance says of itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Report {
    /// Requests in flight.
    pub(crate) rif: u16,
    /// What requests took lately with about so many in flight, in microseconds.
    pub(crate) latency: u32,
}

impl Report {
    /// Asks for a report with the response to a request with those headers.
    pub(crate) fn ask(headers: &mut HeaderMap) {
        headers.insert(ASK, HeaderValue::from_static("1"));
    }

    /// The report in those trailers, if there is one with both numbers.
    pub(crate) fn of(trailers: &HeaderMap) -> Option<Self> {
        let mut one = HeaderMap::with_capacity(1);
        one.insert(HeaderName::from_static(REPORT), trailers.get(REPORT)?.clone());
        let report = MetadataMap::from_headers(one).get_bin(REPORT)?.to_bytes().ok()?;
        let metric = |name: &[u8]| {
            fields(&report)
                .filter(|(number, _)| *number == NAMED_METRICS)
                .find_map(|(_, entry)| {
                    let of = |wanted| {
                        fields(entry)
                            .find(|(number, _)| *number == wanted)
                            .map(|(_, value)| value)
                    };
                    let value = f64::from_le_bytes(of(2)?.try_into().ok()?);
                    // Also against NaN: a report is whatever somebody sent.
                    (of(1)? == name && value >= 0.0).then_some(value)
                })
        };
        // These casts saturate. Latency is in milliseconds.
        Some(Self {
            rif: metric(b"rif")? as u16,
            latency: (metric(b"latency")? * 1000.0) as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataValue;

    use super::*;

    fn trailers(metrics: &[(&str, f64)]) -> HeaderMap {
        // application_utilization first: other fields are passed over.
        let mut report = vec![9 << 3 | 1];
        report.extend(0.5_f64.to_le_bytes());
        for (name, value) in metrics {
            let mut entry = vec![1 << 3 | 2, name.len() as u8];
            entry.extend(name.as_bytes());
            entry.push(2 << 3 | 1);
            entry.extend(value.to_le_bytes());
            report.extend([8 << 3 | 2, entry.len() as u8]);
            report.extend(entry);
        }
        let mut metadata = MetadataMap::new();
        metadata.insert_bin(REPORT, MetadataValue::from_bytes(&report));
        metadata.into_headers()
    }

    #[test]
    fn both_numbers_are_read_in_any_order() {
        let expected = Some(Report { rif: 7, latency: 1500 });
        assert_eq!(Report::of(&trailers(&[("rif", 7.0), ("latency", 1.5)])), expected);
        let more = trailers(&[("queue", 1.0), ("latency", 1.5), ("rif", 7.2)]);
        assert_eq!(Report::of(&more), expected);
    }

    #[test]
    fn what_is_no_report_is_none() {
        assert_eq!(Report::of(&HeaderMap::new()), None);
        assert_eq!(Report::of(&trailers(&[("rif", 7.0)])), None);
        assert_eq!(Report::of(&trailers(&[("rif", f64::NAN), ("latency", 1.0)])), None);
        assert_eq!(Report::of(&trailers(&[("rif", -1.0), ("latency", 1.0)])), None);
        let broken = HeaderMap::from_iter([(
            HeaderName::from_static(REPORT),
            HeaderValue::from_static("$$ no base64 $$"),
        )]);
        assert_eq!(Report::of(&broken), None);
    }

    #[test]
    fn numbers_too_large_saturate() {
        let report = Report::of(&trailers(&[("rif", 1e300), ("latency", f64::INFINITY)]));
        let expected = Report {
            rif: u16::MAX,
            latency: u32::MAX,
        };
        assert_eq!(report, Some(expected));
    }
}
