//! Rules as people write them: what a call must look like, and where it then goes. Values with their limits; nothing here decides.

use std::collections::HashSet;

use http::HeaderName;

use super::destination::Split;

/// More rules than this are a program, and every call reads them in order.
const MAX_RULES: usize = 64;
/// Of names, paths and values: what a person types.
const MAX_TEXT: usize = 1024;

/// The rules of a channel, in their order: the first one that matches a call decides, and a call that none matches goes wherever
/// its tag may. Default: no rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routes {
    rules: Vec<RouteRule>,
}

/// Where the calls go that look a certain way.
///
/// ```
/// use lb::{HeaderMatch, MethodMatch, RouteRule, Routes, Split, Subset};
///
/// // Staff sees version 2; of everybody else one caller in twenty does, and stays there.
/// let second = Subset::every().version(">=2.0.0")?;
/// let first = Subset::every().version("<2.0.0")?;
/// let routes = Routes::try_new([
///     RouteRule::new("staff", second.clone()).header(HeaderMatch::exact("x-staff", "yes")?),
///     RouteRule::new("gray release", Split::try_new([(second, 5), (first, 95)])?.sticky_by("x-user")?)
///         .method(MethodMatch::Prefix("/tessera.ticket.v1.".to_owned())),
/// ])?;
/// # Ok::<(), lb::InvalidRoute>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct RouteRule {
    name: String,
    method: MethodMatch,
    headers: Vec<HeaderMatch>,
    caller_service: Option<String>,
    caller_zone: Option<String>,
    to: Split,
    is_forced: bool,
}

/// Which methods a rule is about, by their paths (`/package.Service/Method`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MethodMatch {
    /// Every one. The default.
    #[default]
    Any,
    /// This one.
    Exact(String),
    /// Those whose paths begin like this: `/package.Service/` is a service, `/package.` a package.
    Prefix(String),
}

/// What a rule asks of a header (of the metadata) of a call. Of a header with several values the first one counts, and a value
/// that is not visible ASCII matches nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    name: HeaderName,
    value: ValueMatch,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ValueMatch {
    Exact(String),
    Prefix(String),
    Present,
    Absent,
}

/// Why a rule was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRoute {
    /// A rule is named in errors: it needs a name, one of at most 1024 bytes.
    #[error("a route needs a name of 1 to {MAX_TEXT} bytes")]
    Name,
    /// Two rules have the same name, and an error that names one would not tell which.
    #[error("two routes are called {name:?}")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// More than 64 rules.
    #[error("{count} routes; at most {MAX_RULES} are read for every call")]
    TooMany {
        /// How many were given.
        count: usize,
    },
    /// A method's path begins with a slash.
    #[error("{path:?} is not a method's path: write /package.Service/Method, or the beginning of one")]
    Method {
        /// As it was given.
        path: String,
    },
    /// Not the name of a header.
    #[error("{name:?} is not the name of a header")]
    Header {
        /// As it was given.
        name: String,
    },
    /// Not a range of versions.
    #[error("{range:?} is not a range of versions: write for example >=1.4.0, <2.0.0")]
    Version {
        /// As it was given.
        range: String,
        /// What is wrong with it.
        #[source]
        source: semver::Error,
    },
    /// A split has 1 to 16 parts.
    #[error("a split has 1 to 16 parts, not {count}")]
    Parts {
        /// How many were given.
        count: usize,
    },
    /// The weight of a part is 0 to 1000, and not all are 0.
    #[error("the weights of a split are 0 to 1000 and not all 0")]
    Weights,
}

impl Routes {
    /// These, in this order.
    ///
    /// # Errors
    /// More than 64, names that are missing, too long or not unique, and methods that are no paths.
    pub fn try_new(rules: impl IntoIterator<Item = RouteRule>) -> Result<Self, InvalidRoute> {
        let rules: Vec<RouteRule> = rules.into_iter().collect();
        if rules.len() > MAX_RULES {
            return Err(InvalidRoute::TooMany { count: rules.len() });
        }
        let mut names = HashSet::new();
        for rule in &rules {
            if rule.name.is_empty() || rule.name.len() > MAX_TEXT {
                return Err(InvalidRoute::Name);
            }
            if !names.insert(&rule.name) {
                return Err(InvalidRoute::Duplicate {
                    name: rule.name.clone(),
                });
            }
            match &rule.method {
                MethodMatch::Exact(path) | MethodMatch::Prefix(path)
                    if !path.starts_with('/') || path.len() > MAX_TEXT =>
                {
                    return Err(InvalidRoute::Method { path: path.clone() });
                }
                _ => {}
            }
        }
        Ok(Self { rules })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub(crate) fn rules(&self) -> &[RouteRule] {
        &self.rules
    }
}

impl RouteRule {
    /// Every call goes there, until more is asked of it. `name` is what errors call the rule.
    #[must_use]
    pub fn new(name: impl Into<String>, to: impl Into<Split>) -> Self {
        Self {
            name: name.into(),
            method: MethodMatch::Any,
            headers: Vec::new(),
            caller_service: None,
            caller_zone: None,
            to: to.into(),
            is_forced: false,
        }
    }

    /// Only calls of these methods. Default: all.
    #[must_use]
    pub fn method(self, method: MethodMatch) -> Self {
        Self { method, ..self }
    }

    /// Only calls with such a header; asked more than once, all of them have to match.
    #[must_use]
    pub fn header(mut self, header: HeaderMatch) -> Self {
        self.headers.push(header);
        self
    }

    /// Only calls of this service, by the name that the caller gave its channel ([`Builder::caller`](crate::Builder::caller)).
    #[must_use]
    pub fn caller_service(self, service: impl Into<String>) -> Self {
        Self {
            caller_service: Some(service.into()),
            ..self
        }
    }

    /// Only calls from this zone, by what the caller gave its channel ([`Builder::zone`](crate::Builder::zone)).
    #[must_use]
    pub fn caller_zone(self, zone: impl Into<String>) -> Self {
        Self {
            caller_zone: Some(zone.into()),
            ..self
        }
    }

    /// With nobody ready there, calls fail (NO_ROUTE) instead of going wherever they could without the rule.
    #[must_use]
    pub fn forced(self) -> Self {
        Self {
            is_forced: true,
            ..self
        }
    }

    /// What errors call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn to(&self) -> &Split {
        &self.to
    }

    pub(crate) fn is_forced(&self) -> bool {
        self.is_forced
    }

    /// Whether calls of such a caller can match at all.
    pub(crate) fn is_for(&self, service: Option<&str>, zone: Option<&str>) -> bool {
        let asked = |wanted: &Option<String>, is: Option<&str>| wanted.as_deref().is_none_or(|it| is == Some(it));
        asked(&self.caller_service, service) && asked(&self.caller_zone, zone)
    }

    pub(crate) fn matches(&self, path: &str, headers: &http::HeaderMap) -> bool {
        let method = match &self.method {
            MethodMatch::Any => true,
            MethodMatch::Exact(exact) => path == exact,
            MethodMatch::Prefix(prefix) => path.starts_with(prefix.as_str()),
        };
        method && self.headers.iter().all(|header| header.matches(headers))
    }
}

impl HeaderMatch {
    /// The header has exactly this value.
    ///
    /// # Errors
    /// `name` cannot be the name of a header.
    pub fn exact(name: &str, value: impl Into<String>) -> Result<Self, InvalidRoute> {
        Self::new(name, ValueMatch::Exact(value.into()))
    }

    /// The header's value begins like this.
    ///
    /// # Errors
    /// `name` cannot be the name of a header.
    pub fn prefix(name: &str, value: impl Into<String>) -> Result<Self, InvalidRoute> {
        Self::new(name, ValueMatch::Prefix(value.into()))
    }

    /// The header is there, with any value.
    ///
    /// # Errors
    /// `name` cannot be the name of a header.
    pub fn present(name: &str) -> Result<Self, InvalidRoute> {
        Self::new(name, ValueMatch::Present)
    }

    /// The header is not there.
    ///
    /// # Errors
    /// `name` cannot be the name of a header.
    pub fn absent(name: &str) -> Result<Self, InvalidRoute> {
        Self::new(name, ValueMatch::Absent)
    }

    fn new(name: &str, value: ValueMatch) -> Result<Self, InvalidRoute> {
        Ok(Self {
            name: header_name(name)?,
            value,
        })
    }

    fn matches(&self, headers: &http::HeaderMap) -> bool {
        let value = headers.get(&self.name);
        let text = value.and_then(|value| value.to_str().ok());
        match &self.value {
            ValueMatch::Exact(exact) => text == Some(exact),
            ValueMatch::Prefix(prefix) => text.is_some_and(|text| text.starts_with(prefix.as_str())),
            ValueMatch::Present => value.is_some(),
            ValueMatch::Absent => value.is_none(),
        }
    }
}

pub(super) fn header_name(name: &str) -> Result<HeaderName, InvalidRoute> {
    name.parse().map_err(|_| InvalidRoute::Header { name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::Subset;

    fn refused(rules: impl IntoIterator<Item = RouteRule>) -> String {
        Routes::try_new(rules).expect_err("must be refused").to_string()
    }

    fn rule(name: &str) -> RouteRule {
        RouteRule::new(name, Subset::every())
    }

    #[test]
    fn what_could_not_be_meant_is_refused() {
        assert!(refused([rule("")]).contains("needs a name"));
        assert!(refused([rule("a"), rule("a")]).contains("two routes are called \"a\""));
        assert!(refused((0..65).map(|n| rule(&n.to_string()))).contains("65 routes"));
        let no_path = rule("a").method(MethodMatch::Exact("pkg.Service/Do".to_owned()));
        assert!(refused([no_path]).contains("/package.Service/Method"));
        assert!(HeaderMatch::present("a b").is_err());
        assert!(Subset::every().version("two").is_err());
    }

    #[test]
    fn a_rule_matches_when_all_that_it_asks_is_so() {
        let mut headers = http::HeaderMap::new();
        headers.insert("x-user", HeaderValue::from_static("anna-7"));
        let check = |rule: RouteRule, expected| {
            assert_eq!(rule.matches("/pkg.Service/Do", &headers), expected, "{rule:?}");
        };
        let header = |made: Result<HeaderMatch, _>| rule("r").header(made.expect("good"));
        check(rule("r"), true);
        for (method, expected) in [("/pkg.Service/Do", true), ("/pkg.Service/", false)] {
            check(rule("r").method(MethodMatch::Exact(method.to_owned())), expected);
        }
        for (method, expected) in [("/pkg.", true), ("/pkg.Service/Do", true), ("/other.", false)] {
            check(rule("r").method(MethodMatch::Prefix(method.to_owned())), expected);
        }
        check(header(HeaderMatch::exact("X-User", "anna-7")), true);
        check(header(HeaderMatch::exact("x-user", "anna")), false);
        check(header(HeaderMatch::prefix("x-user", "anna")), true);
        check(header(HeaderMatch::present("x-user")), true);
        check(header(HeaderMatch::absent("x-user")), false);
        check(header(HeaderMatch::absent("x-other")), true);
        check(
            header(HeaderMatch::present("x-user")).header(HeaderMatch::present("x-other").expect("good")),
            false,
        );
    }

    #[test]
    fn a_rule_for_a_caller_is_for_no_other() {
        let tickets = rule("r").caller_service("ticket-svc").caller_zone("a");
        assert!(tickets.is_for(Some("ticket-svc"), Some("a")));
        assert!(!tickets.is_for(Some("ticket-svc"), Some("b")));
        assert!(!tickets.is_for(None, Some("a")));
        assert!(rule("r").is_for(None, None));
    }
}
