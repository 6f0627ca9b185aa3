//! Log lines on standard error: what is written, in which form, and how that is changed while the process runs.
//!
//! The form is `format`'s; which filter holds, and until when, is `levels`'; that one line said a thousand times does not
//! drown the others is `repeats`'. This file joins them into one subscriber, and `keeper` is the task that takes back what
//! ends by itself. Not here: who may change a filter (that is whoever offers it: `service-host`'s admin endpoint).

mod format;
mod keeper;
mod levels;
mod repeats;

use std::{
    io::IsTerminal as _,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, layer::SubscriberExt as _, registry::LookupSpan, reload, util::SubscriberInitExt as _,
};

pub(crate) use self::keeper::Keeper;
pub use self::levels::{FilterError, MAX_FILTER, MAX_FOR};
use self::{
    format::{Json, Text},
    levels::Levels,
    repeats::RepeatsLayer,
};
use crate::init::{InitError, LogFormat};

/// Crates that the exporter and every connection run through. At `info` or below they would log each exported batch,
/// which would be a loop if logs were exported, and is noise when they are not. A filter can still name them.
/// At `warn` h2 has a line for what any hostile peer may send, and at `debug` sqlx one for every statement.
const QUIET: &str =
    "async_nats=warn,h2=error,hyper=warn,hyper_util=warn,rustls=warn,sqlx=warn,tonic=warn,tower=warn,opentelemetry=off";

/// The filter that holds now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// In the syntax of `RUST_LOG`; what the exporter and connections run through is quieter unless it names them.
    pub filter: String,
    /// What the process was started with: `RUST_LOG`, or its own default.
    pub started_with: String,
    /// For how much longer it holds, and which one follows; `None` until it is changed again.
    pub ends: Option<(Duration, String)>,
}

impl Filter {
    /// As one JSON object: `filter`, `started_with`, and while it is a passing one `ends_in_ms` and `then`.
    pub fn to_json(&self) -> String {
        let mut object = serde_json::json!({ "filter": self.filter, "started_with": self.started_with });
        if let Some((left, then)) = &self.ends {
            object["ends_in_ms"] = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).into();
            object["then"] = then.as_str().into();
        }
        object.to_string()
    }
}

/// The filter that holds now; `None` in a process that has not installed telemetry.
pub fn filter() -> Option<Filter> {
    INSTALLED.get().map(|installed| installed.shown())
}

/// Logs by that filter from now on: for `lasting`, then by the one before; without it until it is changed again or the process
/// ends. It is said in the log.
///
/// `text` is a list of levels and `TARGET=LEVEL`, as in `RUST_LOG`, without that one's filters by span and field: those are
/// built into automata whose size a few characters decide, and our own code makes no `tracing` spans.
///
/// # Errors
/// [`FilterError`] with the part that is wrong; the filter that holds is then unchanged.
pub fn set_filter(text: &str, lasting: Option<Duration>) -> Result<Filter, FilterError> {
    let text = levels::checked(text)?;
    let lasting = lasting.map(levels::checked_for).transpose()?;
    let installed = INSTALLED.get().ok_or(FilterError::NotInstalled)?;
    installed.change(|levels| levels.set(text, lasting.map(|lasting| Instant::now() + lasting)))
}

/// Goes back to what the process was started with.
///
/// # Errors
/// [`FilterError::NotInstalled`] in a process without telemetry.
pub fn reset_filter() -> Result<Filter, FilterError> {
    INSTALLED.get().ok_or(FilterError::NotInstalled)?.change(Levels::reset)
}

static INSTALLED: OnceLock<Arc<Installed>> = OnceLock::new();

/// The subscriber's filter, and what is known of it.
struct Installed {
    /// Puts another filter in force.
    reload: Box<dyn Fn(EnvFilter) + Send + Sync>,
    levels: Mutex<Levels>,
    /// Wakes the keeper: something ends at another time than it thinks.
    changed: Notify,
}

impl Installed {
    fn shown(&self) -> Filter {
        self.levels().shown(Instant::now())
    }

    fn change(&self, change: impl FnOnce(&mut Levels)) -> Result<Filter, FilterError> {
        let (before, after) = {
            let mut levels = self.levels();
            let before = levels.current().to_owned();
            change(&mut levels);
            // Under the lock, so that what is shown is what holds, whoever else changes it now.
            self.apply(levels.current())?;
            (before, levels.shown(Instant::now()))
        };
        self.changed.notify_one();
        let for_seconds = after.ends.as_ref().map(|(left, _)| left.as_secs_f64().ceil());
        tracing::warn!(filter = after.filter, before, for_seconds, "the log filter was changed");
        Ok(after)
    }

    /// Takes back a filter whose time is over.
    fn expire(&self, now: Instant) {
        let filter = {
            let mut levels = self.levels();
            if !levels.expire(now) {
                return;
            }
            let filter = levels.current().to_owned();
            // It held before, so it is valid.
            if let Err(error) = self.apply(&filter) {
                tracing::error!(%error, "the log filter could not be taken back");
            }
            filter
        };
        tracing::warn!(filter, "the log filter's time is over");
    }

    fn apply(&self, text: &str) -> Result<(), FilterError> {
        let filter = build(text).map_err(|source| FilterError::Refused {
            reason: source.to_string(),
        })?;
        (self.reload)(filter);
        Ok(())
    }

    fn levels(&self) -> MutexGuard<'_, Levels> {
        // A panic in between leaves a filter that holds and says so.
        self.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Installs the subscriber of this process.
pub(crate) fn install(format: LogFormat, default_filter: &str) -> Result<(), InitError> {
    let asked = asked(std::env::var("RUST_LOG").ok().as_deref(), default_filter);
    let (filter, installed) = switch(&asked)?;
    let json = match format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    );
    let registry = tracing_subscriber::registry().with(filter).with(RepeatsLayer);
    let done = if json {
        registry.with(layer.event_format(Json)).try_init()
    } else {
        registry.with(layer.event_format(Text)).try_init()
    };
    done.map_err(InitError::AlreadyInstalled)?;
    repeats::count_from_zero();
    // Nobody else gets here: a second subscriber is refused above.
    let _ = INSTALLED.set(Arc::new(installed));
    Ok(())
}

/// What was asked for: `RUST_LOG` where it says something.
fn asked(rust_log: Option<&str>, default_filter: &str) -> String {
    let asked = rust_log.map(str::trim).filter(|value| !value.is_empty());
    asked.unwrap_or(default_filter).to_owned()
}

/// A filter that can be changed, and what changes it.
fn switch<S>(asked: &str) -> Result<(reload::Layer<EnvFilter, S>, Installed), InitError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let filter = build(asked).map_err(|source| InitError::Filter {
        filter: asked.to_owned(),
        source,
    })?;
    let (layer, handle) = reload::Layer::new(filter);
    let installed = Installed {
        // It fails only when the subscriber is gone, and then nobody logs.
        reload: Box::new(move |filter| drop(handle.reload(filter))),
        levels: Mutex::new(Levels::new(asked.to_owned())),
        changed: Notify::new(),
    };
    Ok((layer, installed))
}

fn build(asked: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    // A later directive replaces an equal earlier one, and a longer target beats a shorter one.
    EnvFilter::builder().parse(format!("{QUIET},{asked}"))
}

#[cfg(test)]
mod tests {
    use tracing::subscriber::with_default;

    use super::*;

    /// What is written by `format` while `work` is done, by a filter that can be changed meanwhile.
    pub(super) fn logged<F>(format: F, work: impl FnOnce(&Installed)) -> String
    where
        F: tracing_subscriber::fmt::FormatEvent<Stack, tracing_subscriber::fmt::format::DefaultFields>
            + Send
            + Sync
            + 'static,
    {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let (filter, installed) = switch("info").expect("valid");
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .event_format(format);
        let subscriber = tracing_subscriber::registry().with(filter).with(layer);
        with_default(subscriber, || work(&installed));
        let bytes = buffer.0.lock().expect("not poisoned").clone();
        String::from_utf8(bytes).expect("text")
    }

    type Stack = tracing_subscriber::layer::Layered<
        reload::Layer<EnvFilter, tracing_subscriber::Registry>,
        tracing_subscriber::Registry,
    >;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("not poisoned").extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_export_runs_through_is_quiet_unless_named() {
        let text = logged(Text, |installed| {
            tracing::info!(target: "h2::codec", "frame");
            tracing::error!(target: "opentelemetry-otlp", "failed");
            tracing::warn!(target: "tonic::transport", "kept");
            installed
                .change(|levels| levels.set("info,h2=trace".to_owned(), None))
                .expect("valid");
            tracing::trace!(target: "h2::codec", "asked for");
        });
        assert!(!text.contains("frame") && !text.contains("failed"), "{text}");
        assert!(text.contains("kept") && text.contains("asked for"), "{text}");
    }

    #[test]
    fn a_bad_filter_is_an_error_that_shows_it() {
        let error = switch::<tracing_subscriber::Registry>("info,tick et=debug=x").err();
        assert!(error.expect("invalid").to_string().contains("tick et"));
        assert_eq!(asked(Some(" "), "info"), "info");
        assert_eq!(asked(Some("warn"), "info"), "warn");
    }

    #[tokio::test(start_paused = true)]
    async fn a_filter_is_changed_for_a_while_and_goes_back() {
        let text = logged(Text, |installed| {
            tracing::debug!("one");
            let passing = Instant::now() + Duration::from_secs(60);
            let shown = installed
                .change(|levels| levels.set("debug".to_owned(), Some(passing)))
                .expect("valid");
            assert_eq!(shown.filter, "debug");
            assert_eq!(shown.ends, Some((Duration::from_secs(60), "info".to_owned())));
            tracing::debug!("two");
            installed.expire(passing - Duration::from_millis(1));
            tracing::debug!("three");
            installed.expire(passing);
            tracing::debug!("four");
            assert_eq!(installed.shown().filter, "info");
            // What the subscriber does not take changes nothing that is said.
            let refused = installed.change(|levels| levels.set("a=b=c".to_owned(), None));
            assert!(matches!(refused, Err(FilterError::Refused { .. })));
        });
        for (line, expected) in [("one", false), ("two", true), ("three", true), ("four", false)] {
            assert_eq!(text.contains(line), expected, "{line} in {text}");
        }
        assert!(
            text.contains("the log filter was changed filter=\"debug\" before=\"info\" for_seconds=60"),
            "{text}"
        );
        assert!(text.contains("the log filter's time is over filter=\"info\""), "{text}");
    }

    #[test]
    fn the_filter_is_shown_as_json() {
        let mut filter = Filter {
            filter: "info,a=debug".to_owned(),
            started_with: "info".to_owned(),
            ends: None,
        };
        assert_eq!(filter.to_json(), r#"{"filter":"info,a=debug","started_with":"info"}"#);
        filter.ends = Some((Duration::from_millis(1_500), "info".to_owned()));
        assert_eq!(
            filter.to_json(),
            r#"{"ends_in_ms":1500,"filter":"info,a=debug","started_with":"info","then":"info"}"#
        );
    }
}
