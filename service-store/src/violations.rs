//! Collects what is wrong with a request, all of it, so that its maker is told once and not field by field. Knows no protocol.

use std::fmt::Display;

use uuid::Uuid;

/// Field paths as the proto spells them, each with what the field must be.
#[derive(Debug, Default)]
pub struct Violations(Vec<(String, String)>);

impl Violations {
    /// Notes that `field` must be otherwise.
    pub fn add(&mut self, field: impl Into<String>, must: impl Display) {
        self.0.push((field.into(), must.to_string()));
    }

    /// The value, or a violation. A request without a `None` from here has no violations.
    pub fn check<T, E: Display>(&mut self, field: impl Into<String>, value: Result<T, E>) -> Option<T> {
        value.map_err(|must| self.add(field, must)).ok()
    }

    /// A UUID in its hyphenated form. One id, one spelling: braces, URNs and plain hexadecimal are refused.
    pub fn uuid(&mut self, field: &str, value: &str) -> Option<Uuid> {
        let parsed = Uuid::try_parse(value)
            .ok()
            .filter(|_| value.len() == uuid::fmt::Hyphenated::LENGTH);
        self.check(
            field,
            parsed.ok_or("must be a UUID, for example 6f1c2b1e-3f0a-4f7e-9c55-0d2b8f6f2a10"),
        )
    }
}

impl IntoIterator for Violations {
    type Item = (String, String);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    /// Field and what it must be, in the order in which they were noted.
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let id = "6f1c2b1e-3f0a-4f7e-9c55-0d2b8f6f2a10";
        let mut violations = Violations::default();
        assert_eq!(violations.uuid("id", id).map(|id| id.to_string()).as_deref(), Some(id));
        assert_eq!(violations.into_iter().count(), 0);
        for bad in [
            "",
            "7",
            &id.replace('-', ""),
            &format!("{{{id}}}"),
            &format!("urn:uuid:{id}"),
        ] {
            let mut violations = Violations::default();
            assert_eq!(violations.uuid("id", bad), None);
            let fields: Vec<String> = violations.into_iter().map(|(field, _)| field).collect();
            assert_eq!(fields, ["id"], "{bad:?}");
        }
    }
}
