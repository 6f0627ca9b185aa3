//! Collects what is wrong with a request, all of it, so that its maker is told once and not field by field.

use std::fmt::Display;

use service_host::status;
use tonic::Status;
use uuid::Uuid;

/// Field paths as the proto spells them, each with what the field must be.
#[derive(Debug, Default)]
pub(super) struct Violations(Vec<(String, String)>);

impl Violations {
    /// Notes that `field` must be otherwise.
    pub(super) fn add(&mut self, field: impl Into<String>, must: impl Display) {
        self.0.push((field.into(), must.to_string()));
    }

    /// The value, or a violation. A request without a `None` from here has no violations.
    pub(super) fn check<T, E: Display>(&mut self, field: impl Into<String>, value: Result<T, E>) -> Option<T> {
        value.map_err(|must| self.add(field, must)).ok()
    }

    /// A UUID in its hyphenated form. One id, one spelling: braces, URNs and plain hexadecimal are refused.
    pub(super) fn uuid(&mut self, field: &str, value: &str) -> Option<Uuid> {
        let parsed = Uuid::try_parse(value)
            .ok()
            .filter(|_| value.len() == uuid::fmt::Hyphenated::LENGTH);
        self.check(
            field,
            parsed.ok_or("must be a UUID, for example 6f1c2b1e-3f0a-4f7e-9c55-0d2b8f6f2a10"),
        )
    }

    /// INVALID_ARGUMENT with all of them.
    pub(super) fn into_status(self) -> Status {
        status::invalid(self.0)
    }
}
