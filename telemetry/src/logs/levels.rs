//! Which filter holds, and until when: a pure core, whose time is an argument. Not here: the subscriber that it is for.

use std::time::Duration;

use tokio::time::Instant;

use super::Filter;

/// Longest filter that can be set while a process runs, in bytes.
pub const MAX_FILTER: usize = 1_024;
/// Longest time that a passing filter may hold: a day.
pub const MAX_FOR: Duration = Duration::from_secs(86_400);

/// Why a filter cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// There is nothing in it.
    #[error("a filter has at least a level; an example is info,ticket_svc=debug")]
    Empty,
    /// It is longer than [`MAX_FILTER`].
    #[error("a filter has at most {MAX_FILTER} bytes")]
    Long,
    /// A part has neither the form `LEVEL` nor `TARGET=LEVEL`.
    #[error("{part:?} is neither LEVEL nor TARGET=LEVEL; an example is info,ticket_svc=debug")]
    Part {
        /// The part, as given.
        part: String,
    },
    /// A part's level is none.
    #[error("{level:?} is no level: give off, error, warn, info, debug or trace, or TARGET=LEVEL")]
    Level {
        /// What stands where a level should.
        level: String,
    },
    /// It is to hold for no time, or for too long.
    #[error("a filter holds for more than 0 and at most 24h")]
    For,
    /// The subscriber does not take it.
    #[error("the filter is refused: {reason}")]
    Refused {
        /// In the subscriber's words.
        reason: String,
    },
    /// This process has not installed telemetry.
    #[error("this process has not installed logging")]
    NotInstalled,
}

/// The filter, without blanks around its parts.
///
/// # Errors
/// [`FilterError`] with the first part that is wrong. `RUST_LOG` itself is more lenient: there `debgu` is a crate of which
/// everything is logged, which nobody who types it means.
pub(super) fn checked(text: &str) -> Result<String, FilterError> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    if text.len() > MAX_FILTER {
        return Err(FilterError::Long);
    }
    if text.trim().is_empty() {
        return Err(FilterError::Empty);
    }
    let is_level = |level: &str| LEVELS.iter().any(|known| level.eq_ignore_ascii_case(known));
    let is_of_target = |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | ':' | '-' | '.');
    let mut parts = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (target, level) = part
            .split_once('=')
            .map_or((None, part), |(target, level)| (Some(target), level));
        if target.is_some_and(|target| target.is_empty() || !target.chars().all(is_of_target)) || level.is_empty() {
            return Err(FilterError::Part { part: part.to_owned() });
        }
        if !is_level(level) {
            return Err(FilterError::Level {
                level: level.to_owned(),
            });
        }
        parts.push(part);
    }
    Ok(parts.join(","))
}

/// The time a filter is to hold, within bounds.
pub(super) fn checked_for(lasting: Duration) -> Result<Duration, FilterError> {
    match lasting {
        Duration::ZERO => Err(FilterError::For),
        _ if lasting > MAX_FOR => Err(FilterError::For),
        _ => Ok(lasting),
    }
}

/// The filter a process was started with, the one that was set to stay, and the one that holds for a while.
#[derive(Debug)]
pub(super) struct Levels {
    started_with: String,
    lasting: String,
    passing: Option<(String, Instant)>,
}

impl Levels {
    pub(super) fn new(started_with: String) -> Self {
        Self {
            lasting: started_with.clone(),
            started_with,
            passing: None,
        }
    }

    /// The filter that holds.
    pub(super) fn current(&self) -> &str {
        self.passing.as_ref().map_or(&self.lasting, |(filter, _)| filter)
    }

    /// When that ends by itself.
    pub(super) fn ends(&self) -> Option<Instant> {
        self.passing.as_ref().map(|(_, ends)| *ends)
    }

    /// A filter that ends replaces one that does, and one that stays replaces both.
    pub(super) fn set(&mut self, filter: String, ends: Option<Instant>) {
        match ends {
            Some(ends) => self.passing = Some((filter, ends)),
            None => {
                self.lasting = filter;
                self.passing = None;
            }
        }
    }

    /// Back to the beginning.
    pub(super) fn reset(&mut self) {
        self.set(self.started_with.clone(), None);
    }

    /// Whether the one that held is over; then another does.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let is_over = self.ends().is_some_and(|ends| ends <= now);
        if is_over {
            self.passing = None;
        }
        is_over
    }

    pub(super) fn shown(&self, now: Instant) -> Filter {
        let ends = self.ends().map(|ends| ends.saturating_duration_since(now));
        Filter {
            filter: self.current().to_owned(),
            started_with: self.started_with.clone(),
            ends: ends.map(|left| (left, self.lasting.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_levels_and_targets_with_levels_are_filters() {
        let part = |part: &str| Err(FilterError::Part { part: part.to_owned() });
        let level = |level: &str| {
            Err(FilterError::Level {
                level: level.to_owned(),
            })
        };
        for (text, expected) in [
            ("info", Ok("info")),
            (" info , ticket_svc::api=DEBUG\n", Ok("info,ticket_svc::api=DEBUG")),
            ("opentelemetry-otlp=warn,off", Ok("opentelemetry-otlp=warn,off")),
            ("", Err(FilterError::Empty)),
            (" \n", Err(FilterError::Empty)),
            ("debgu", level("debgu")),
            ("ticket_svc", level("ticket_svc")),
            ("ticket_svc=loud", level("loud")),
            ("a=b=c", level("b=c")),
            ("info,", part("")),
            ("a=", part("a=")),
            ("=info", part("=info")),
            ("tick et=info", part("tick et=info")),
            // Filters by span and field are for whoever starts the process.
            ("[span{field=x.*}]=debug", part("[span{field=x.*}]=debug")),
            ("[span]", level("[span]")),
        ] {
            assert_eq!(checked(text), expected.map(str::to_owned), "{text:?}");
        }
        assert_eq!(checked(&"a".repeat(MAX_FILTER + 1)), Err(FilterError::Long));
    }

    #[test]
    fn a_time_is_within_its_bounds() {
        assert_eq!(checked_for(Duration::ZERO), Err(FilterError::For));
        assert_eq!(checked_for(MAX_FOR), Ok(MAX_FOR));
        assert_eq!(checked_for(MAX_FOR + Duration::from_nanos(1)), Err(FilterError::For));
    }

    #[test]
    fn a_passing_filter_gives_way_to_the_one_that_was_set_to_stay() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut levels = Levels::new("info".to_owned());
        levels.set("warn".to_owned(), None);
        levels.set("debug".to_owned(), Some(after(10)));
        levels.set("trace".to_owned(), Some(after(20)));
        assert_eq!((levels.current(), levels.ends()), ("trace", Some(after(20))));
        assert!(!levels.expire(after(19)));
        assert!(levels.expire(after(20)));
        assert!(!levels.expire(after(20)), "once");
        assert_eq!((levels.current(), levels.ends()), ("warn", None));
        levels.set("debug".to_owned(), Some(after(30)));
        levels.reset();
        assert_eq!((levels.current(), levels.ends()), ("info", None));
    }
}
