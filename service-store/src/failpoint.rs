//! Named places in the code where a test lets a process die or stand still: between a commit and its answer, say. There are
//! none in a release build. Which names a service has is its own list; what must hold after each of them is the crash tests'.
//!
//! `TESSERA_FAIL_AT=NAME` ends the process at the first passing of NAME, as `kill -9` would: no destructor runs, nothing is
//! flushed. `NAME:3` does at the third, and `NAME:3:hang` lets that task stand there for ever while the process lives.

/// Passes the place `name`; does nothing, unless this is a debug build whose `TESSERA_FAIL_AT` names it.
#[cfg(not(debug_assertions))]
#[expect(clippy::unused_async, reason = "it awaits in debug builds, where it may hang")]
#[inline]
pub async fn failpoint(_name: &'static str) {}

/// Passes the place `name`; does nothing, unless this is a debug build whose `TESSERA_FAIL_AT` names it.
#[cfg(debug_assertions)]
#[inline]
pub async fn failpoint(name: &'static str) {
    armed::pass(name).await;
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    };

    /// One place of a process that fails, and how.
    #[derive(Debug, PartialEq, Eq)]
    pub(super) struct FailAt {
        name: String,
        nth: u64,
        hang: bool,
    }

    static FAIL_AT: OnceLock<Option<FailAt>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);

    pub(super) async fn pass(name: &str) {
        let fail_at = FAIL_AT.get_or_init(|| {
            let text = std::env::var("TESSERA_FAIL_AT").ok()?;
            let fail_at = FailAt::parse(&text);
            // Loud: a crash test whose name has a slip of the pen would pass for the wrong reason.
            assert!(fail_at.is_some(), "TESSERA_FAIL_AT={text}: must be NAME[:NTH[:hang]]");
            fail_at
        });
        let Some(fail_at) = fail_at.as_ref().filter(|fail_at| fail_at.name == name) else {
            return;
        };
        if PASSED.fetch_add(1, Ordering::SeqCst) + 1 != fail_at.nth {
            return;
        }
        // Written at once: whoever waits for it reads standard error.
        if fail_at.hang {
            eprintln!("fail point {name}: hangs");
            std::future::pending::<()>().await;
        }
        eprintln!("fail point {name}: aborts");
        std::process::abort();
    }

    impl FailAt {
        pub(super) fn parse(text: &str) -> Option<Self> {
            let mut parts = text.split(':');
            let name = parts.next().filter(|name| !name.is_empty())?.to_owned();
            let nth = parts
                .next()
                .map_or(Some(1), |nth| nth.parse().ok().filter(|nth| *nth > 0))?;
            let hang = match parts.next() {
                None => false,
                Some("hang") => true,
                Some(_) => return None,
            };
            parts.next().is_none().then_some(Self { name, nth, hang })
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_place_its_turn_and_what_it_does_are_read_or_refused() {
            let at = |name: &str, nth, hang| {
                let name = name.to_owned();
                Some(FailAt { name, nth, hang })
            };
            assert_eq!(
                FailAt::parse("user.hold.call.before"),
                at("user.hold.call.before", 1, false)
            );
            assert_eq!(FailAt::parse("a:3"), at("a", 3, false));
            assert_eq!(FailAt::parse("a:1:hang"), at("a", 1, true));
            for bad in ["", ":1", "a:0", "a:x", "a:1:abort", "a:1:hang:2"] {
                assert_eq!(FailAt::parse(bad), None, "{bad:?}");
            }
        }
    }
}

/// The names that the sources under `folder` pass, sorted, each once: for a service's test that its list is complete.
///
/// # Panics
/// When the sources cannot be read.
#[cfg(debug_assertions)]
#[must_use]
pub fn failpoints_in(folder: &std::path::Path) -> Vec<String> {
    let mut names = std::collections::BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of sources") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source");
                let calls = text.split("failpoint(\"").skip(1);
                names.extend(calls.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
            }
        }
    }
    names.into_iter().collect()
}
