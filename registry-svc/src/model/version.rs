//! A semantic version (semver.org 2.0.0), kept as text: the registry compares versions for equality alone.

use std::{fmt, sync::Arc};

use super::{ValueError, name::bounded};
use crate::limits;

const RULE: &str = "a semantic version such as \"1.4.2\" or \"2.0.0-rc.1+build.5\" (semver.org)";

/// A semantic version, or empty for an instance that has none.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Version(Arc<str>);

impl Version {
    /// At most 64 characters.
    pub(crate) fn try_new(text: &str) -> Result<Self, ValueError> {
        bounded(text, limits::VERSION_CHARS)?;
        if !text.is_empty() && !is_semantic(text) {
            return Err(ValueError::Malformed { rule: RULE });
        }
        Ok(Self(text.into()))
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// The grammar of semver.org: `core [-pre] [+build]`.
fn is_semantic(text: &str) -> bool {
    let (rest, build) = match text.split_once('+') {
        Some((rest, build)) => (rest, Some(build)),
        None => (text, None),
    };
    let (core, pre) = match rest.split_once('-') {
        Some((core, pre)) => (core, Some(pre)),
        None => (rest, None),
    };
    let mut numbers = core.split('.');
    let core_fits = numbers.by_ref().take(3).filter(|part| is_number(part)).count() == 3 && numbers.next().is_none();
    core_fits
        // Numbers of a pre-release have no leading zeros; a build may (semver.org, 9 and 10).
        && pre.is_none_or(|pre| pre.split('.').all(|p| is_identifier(p) && (!is_digits(p) || is_number(p))))
        && build.is_none_or(|build| build.split('.').all(is_identifier))
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && is_digits(text) && (text.len() == 1 || !text.starts_with('0'))
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_grammar() {
        for good in [
            "",
            "0.1.0",
            "1.4.2",
            "1.0.0-alpha.1",
            "1.0.0--",
            "1.0.0+001",
            "2.0.0-rc.1+build.5",
            "1.0.0-0a",
        ] {
            assert!(Version::try_new(good).is_ok(), "{good:?}");
        }
        for bad in [
            "1",
            "1.2",
            "1.2.3.4",
            "v1.2.3",
            "01.2.3",
            "1.2.3-",
            "1.2.3+",
            "1.2.3-01",
            "1.2.3-a..b",
            "1.2.3-ä",
            " 1.2.3",
        ] {
            assert!(Version::try_new(bad).is_err(), "{bad:?} was taken");
        }
        assert!(Version::try_new(&format!("1.2.3-{}", "a".repeat(59))).is_err());
    }
}
