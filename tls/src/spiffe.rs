//! SPIFFE ids: `spiffe://TRUST-DOMAIN/PATH`, and the two forms of path that mean something here. Pure.

use std::{fmt, str::FromStr};

/// The longest id (SPIFFE-ID, 2.3), and the longest trust domain in it.
const MAX_ID_BYTES: usize = 2_048;
const MAX_TRUST_DOMAIN_BYTES: usize = 255;

/// A well-formed SPIFFE id with a path.
///
/// ```
/// let id: tls::SpiffeId = "spiffe://example.org/ns/default/svc/ticket-svc".parse()?;
/// assert_eq!(id.service(), Some(("default", "ticket-svc")));
/// assert_eq!(id.operator(), None);
/// # Ok::<(), tls::InvalidSpiffeId>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    text: String,
    /// Where the path begins, at its slash.
    path: usize,
}

/// Why a text is no SPIFFE id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no SPIFFE id: {problem}; write spiffe://TRUST-DOMAIN/ns/NAMESPACE/svc/SERVICE")]
pub struct InvalidSpiffeId {
    /// As it was given, cut after 100 characters.
    pub text: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl SpiffeId {
    /// The id of a service: `spiffe://TRUST-DOMAIN/ns/NAMESPACE/svc/SERVICE`.
    ///
    /// # Errors
    /// If a part has characters that an id cannot have.
    pub fn of_service(trust_domain: &str, namespace: &str, service: &str) -> Result<Self, InvalidSpiffeId> {
        Self::of(trust_domain, &["ns", namespace, "svc", service])
    }

    /// The id of an operator: `spiffe://TRUST-DOMAIN/operator/NAME`.
    ///
    /// # Errors
    /// If a part has characters that an id cannot have.
    pub fn of_operator(trust_domain: &str, name: &str) -> Result<Self, InvalidSpiffeId> {
        Self::of(trust_domain, &["operator", name])
    }

    fn of(trust_domain: &str, segments: &[&str]) -> Result<Self, InvalidSpiffeId> {
        let text = format!("spiffe://{trust_domain}/{}", segments.join("/"));
        // A slash within a part would make another id of it.
        if trust_domain.contains('/') || segments.iter().any(|segment| segment.contains('/')) {
            let problem = "a part of it has a slash";
            return Err(InvalidSpiffeId { text, problem });
        }
        text.parse()
    }

    /// The whole id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Who vouches for it.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.text["spiffe://".len()..self.path]
    }

    /// The path with its leading slash.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[self.path..]
    }

    /// Namespace and name, if it is a service's id: the path is exactly `/ns/NAMESPACE/svc/SERVICE`.
    #[must_use]
    pub fn service(&self) -> Option<(&str, &str)> {
        let rest = self.path().strip_prefix("/ns/")?;
        let (namespace, rest) = rest.split_once('/')?;
        let service = rest.strip_prefix("svc/")?;
        (!service.contains('/')).then_some((namespace, service))
    }

    /// The name, if it is an operator's id: the path is exactly `/operator/NAME`.
    #[must_use]
    pub fn operator(&self) -> Option<&str> {
        let name = self.path().strip_prefix("/operator/")?;
        (!name.contains('/')).then_some(name)
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    /// By the rules of SPIFFE-ID, 2: so narrow that two different texts are never the same id.
    fn from_str(text: &str) -> Result<Self, InvalidSpiffeId> {
        let invalid = |problem| InvalidSpiffeId {
            text: text.chars().take(100).collect(),
            problem,
        };
        if text.len() > MAX_ID_BYTES {
            return Err(invalid("it is longer than 2,048 bytes"));
        }
        let rest = text
            .strip_prefix("spiffe://")
            .ok_or_else(|| invalid("it does not begin with spiffe://"))?;
        let (domain, path) = rest
            .split_once('/')
            .ok_or_else(|| invalid("it has no path, so it names nobody"))?;
        if domain.is_empty() || domain.len() > MAX_TRUST_DOMAIN_BYTES {
            return Err(invalid("its trust domain must have 1 to 255 bytes"));
        }
        let in_domain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        if !domain.bytes().all(in_domain) {
            return Err(invalid("its trust domain may have a-z, 0-9, '.', '-' and '_' only"));
        }
        let in_segment = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        for segment in path.split('/') {
            if segment.is_empty() {
                return Err(invalid("its path has an empty segment"));
            }
            if segment == "." || segment == ".." {
                return Err(invalid("its path may not be relative"));
            }
            if !segment.bytes().all(in_segment) {
                return Err(invalid("its path may have a-z, A-Z, 0-9, '.', '-' and '_' only"));
            }
        }
        Ok(Self {
            text: text.to_owned(),
            path: "spiffe://".len() + domain.len(),
        })
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_taken_apart() {
        let id = SpiffeId::of_service("prod.example", "default", "ticket-svc").expect("valid");
        assert_eq!(id.as_str(), "spiffe://prod.example/ns/default/svc/ticket-svc");
        assert_eq!(
            (id.trust_domain(), id.path()),
            ("prod.example", "/ns/default/svc/ticket-svc")
        );
        assert_eq!((id.service(), id.operator()), (Some(("default", "ticket-svc")), None));
        let id = SpiffeId::of_operator("prod.example", "ann").expect("valid");
        assert_eq!((id.service(), id.operator()), (None, Some("ann")));
    }

    #[test]
    fn only_the_exact_form_names_a_service() {
        for path in [
            "ns/default/svc",
            "ns/default/svc/a/b",
            "ns/a/b/svc/c",
            "x/ns/default/svc/a",
            "ns/default/sa/a",
            "operator/a/b",
            "workload",
        ] {
            let id: SpiffeId = format!("spiffe://example/{path}").parse().expect(path);
            assert_eq!((id.service(), id.operator()), (None, None), "{path}");
        }
    }

    #[test]
    fn what_is_no_id_is_refused_with_the_reason() {
        let long = format!("spiffe://a/{}", "b".repeat(2_048));
        for (text, reason) in [
            ("", "begin"),
            ("https://a/b", "begin"),
            ("SPIFFE://a/b", "begin"),
            ("spiffe://a", "no path"),
            ("spiffe:///b", "trust domain"),
            ("spiffe://A/b", "trust domain"),
            ("spiffe://a:1/b", "trust domain"),
            ("spiffe://u@a/b", "trust domain"),
            ("spiffe://a/", "empty"),
            ("spiffe://a/b/", "empty"),
            ("spiffe://a//b", "empty"),
            ("spiffe://a/../b", "relative"),
            ("spiffe://a/./b", "relative"),
            ("spiffe://a/b?c", "path may"),
            ("spiffe://a/b#c", "path may"),
            ("spiffe://a/%62", "path may"),
            ("spiffe://a/b\n", "path may"),
            (long.as_str(), "longer"),
        ] {
            let error = text.parse::<SpiffeId>().expect_err(text);
            assert!(error.problem.contains(reason), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_service_cannot_smuggle_segments_into_its_id() {
        for service in ["a/b", "..", "", "a b", "a\0"] {
            assert!(SpiffeId::of_service("d", "n", service).is_err(), "{service:?}");
        }
    }
}
