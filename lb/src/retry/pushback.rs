//! What a server says about coming again: the `grpc-retry-pushback-ms` of its trailers (gRFC A6).

use std::time::Duration;

use http::HeaderMap;

const HEADER: &str = "grpc-retry-pushback-ms";
/// A server that wants to be left alone for longer than this has, for the caller of one call, said no.
const LONGEST: Duration = Duration::from_secs(300);

/// What a server said about coming again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushback {
    /// Nothing.
    Unsaid,
    /// Come again after exactly this.
    After(Duration),
    /// Do not come again: a negative number, one that cannot be read, or more than five minutes.
    Never,
}

impl Pushback {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let Some(value) = headers.get(HEADER) else {
            return Self::Unsaid;
        };
        let millis = value.to_str().ok().and_then(|text| text.parse::<u64>().ok());
        match millis.map(Duration::from_millis) {
            Some(after) if after <= LONGEST => Self::After(after),
            _ => Self::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_cannot_be_read_is_a_no() {
        let check = |value: &'static str, expected| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, HeaderValue::from_static(value));
            assert_eq!(Pushback::of(&headers), expected, "{value}");
        };
        assert_eq!(Pushback::of(&HeaderMap::new()), Pushback::Unsaid);
        check("0", Pushback::After(Duration::ZERO));
        check("250", Pushback::After(Duration::from_millis(250)));
        check("-1", Pushback::Never);
        check("soon", Pushback::Never);
        check("300001", Pushback::Never);
        check("99999999999999999999999", Pushback::Never);
    }
}
