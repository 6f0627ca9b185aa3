//! Where events take place. Not how its seats stand: that is each event's own plan.

use service_store::{Invalid, Text};

/// What a venue or an event is called.
pub(crate) type Title = Text<200>;

/// A venue as an event's maker describes it. Two that are equal in every field are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Venue {
    pub(crate) name: Title,
    pub(crate) city: Option<Text<100>>,
    pub(crate) address: Option<Title>,
    pub(crate) time_zone: Option<TimeZone>,
}

/// The name of a time zone, in the shape that the IANA database has: `Europe/Berlin`. Whether there is such a zone is for
/// those to find out who compute with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TimeZone(String);

impl Venue {
    /// A venue of which nothing is known but its name.
    pub(crate) fn named(name: Title) -> Self {
        Self {
            name,
            city: None,
            address: None,
            time_zone: None,
        }
    }

    pub(crate) fn city(&self) -> &str {
        self.city.as_ref().map_or("", Text::as_str)
    }

    pub(crate) fn address(&self) -> &str {
        self.address.as_ref().map_or("", Text::as_str)
    }

    pub(crate) fn time_zone(&self) -> &str {
        self.time_zone.as_ref().map_or("", |zone| zone.0.as_str())
    }
}

impl TimeZone {
    pub(crate) fn try_new(name: &str) -> Result<Self, Invalid> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'-' | b'+');
        let part = |part: &str| !part.is_empty() && part.bytes().all(allowed);
        if name.len() > 64 || !name.split('/').all(part) {
            return Err(Invalid("must be the name of a time zone, for example Europe/Berlin"));
        }
        Ok(Self(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_zone_has_the_shape_of_one() {
        for good in ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+3"] {
            assert!(TimeZone::try_new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/",
            "Europe/",
            "Europe Berlin",
            "../../etc/passwd\0",
            &"x".repeat(65),
        ] {
            assert!(TimeZone::try_new(bad).is_err(), "{bad:?}");
        }
    }
}
