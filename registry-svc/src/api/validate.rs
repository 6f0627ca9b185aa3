//! Collecting what is wrong with a request, so that its sender learns all of it at once.

use std::{fmt::Display, time::Duration};

use super::error::ApiError;
use crate::{
    catalog::{CatalogError, Owner},
    limits,
    model::{LeaseId, SecretHash, ValueError, WallTime},
};

/// The last second of the year 9999, where protobuf's timestamps end.
const LAST_SECOND: i64 = 253_402_300_799;
/// The longest duration in protobuf's range, some 10,000 years.
const LONGEST_SECONDS: u64 = 315_576_000_000;

/// Fields that break a rule, each with the rule.
#[derive(Debug, Default)]
pub(super) struct Violations(Vec<(String, String)>);

/// A lease and its secret as a request shows them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    lease: Option<LeaseId>,
    secret: SecretHash,
}

impl Violations {
    /// Keeps the value, or notes what is wrong with the field.
    pub(super) fn check<T, E: Display>(&mut self, field: impl Display, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(field, error)).ok()
    }

    /// Notes what is wrong with a field.
    pub(super) fn add(&mut self, field: impl Display, description: impl Display) {
        // They travel in a header of bounded size: the first ones tell enough to begin with.
        if self.0.len() < limits::VIOLATIONS {
            self.0.push((field.to_string(), description.to_string()));
        }
    }

    /// Whether all is well so far.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The error, for those who have found that something is missing.
    pub(super) fn into_error(self) -> ApiError {
        ApiError::Invalid(self.0)
    }

    /// An error unless all is well.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(self.into_error())
        }
    }

    /// A lease id and its secret, both required.
    pub(super) fn claim(&mut self, lease_id: &str, lease_secret: &str) -> Option<Claim> {
        let mut is_well = true;
        for (field, text) in [("lease_id", lease_id), ("lease_secret", lease_secret)] {
            if text.is_empty() {
                self.add(field, "required: as Register returned it");
                is_well = false;
            } else if text.len() > limits::LEASE_TEXT_CHARS {
                let (limit, found) = (limits::LEASE_TEXT_CHARS, text.len());
                self.add(field, ValueError::TooManyCharacters { limit, found });
                is_well = false;
            }
        }
        is_well.then(|| Claim {
            lease: LeaseId::parse(lease_id),
            secret: SecretHash::of(lease_secret),
        })
    }

    /// A duration, if it is one.
    pub(super) fn duration(&mut self, field: &str, duration: prost_types::Duration) -> Option<Duration> {
        // Not with prost's conversion: it normalises first, and panics in debug builds where that overflows.
        let seconds = u64::try_from(duration.seconds).ok();
        let seconds = seconds.filter(|seconds| *seconds <= LONGEST_SECONDS);
        let duration = seconds
            .zip(nanos(duration.nanos))
            .map(|(seconds, nanos)| Duration::new(seconds, nanos));
        self.check(
            field,
            duration.ok_or("must be a duration in protobuf's range that is not negative"),
        )
    }

    /// A timestamp, if it is one.
    pub(super) fn time(&mut self, field: impl Display, time: prost_types::Timestamp) -> Option<WallTime> {
        let seconds = Some(time.seconds).filter(|seconds| (0..=LAST_SECOND).contains(seconds));
        let time = seconds
            .zip(nanos(time.nanos))
            .map(|(seconds, nanos)| WallTime { seconds, nanos });
        self.check(field, time.ok_or("must be a time from 1970-01-01 to 9999-12-31"))
    }
}

impl Claim {
    /// The owner. An id that we cannot have granted is as unknown as one that has ended: its holder does well to register
    /// again, and a malformed-argument error would make it give up.
    pub(super) fn owner(self) -> Result<Owner, ApiError> {
        let lease = self.lease.ok_or(CatalogError::LeaseUnknown)?;
        Ok(Owner {
            lease,
            secret: self.secret,
        })
    }
}

/// The part below a second.
fn nanos(nanos: i32) -> Option<u32> {
    u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)
}

/// `prefix.field`, or `field` at the top.
pub(super) fn path(prefix: &str, field: &str) -> String {
    if prefix.is_empty() {
        field.to_owned()
    } else {
        format!("{prefix}.{field}")
    }
}
