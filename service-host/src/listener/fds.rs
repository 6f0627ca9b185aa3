//! How many connections the process's limit of open files allows.

use rustix::process::{Resource, getrlimit};

/// Files that are not inbound connections: stores, outbound connections, the runtime's own.
const RESERVE: u64 = 64;
/// Fewer than this is not a server.
const FEWEST: usize = 8;

/// `wanted`, lowered to what the limit of open files leaves room for.
pub(crate) fn cap(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    let capped = within(wanted, limit);
    if capped < wanted {
        tracing::debug!(
            wanted,
            capped,
            open_files = limit,
            "fewer connections, because of the limit of open files"
        );
    }
    capped
}

/// A quarter of the limit, and at least [`RESERVE`], stays free for everything else.
fn within(wanted: usize, limit: Option<u64>) -> usize {
    let Some(limit) = limit else {
        return wanted;
    };
    let room = limit.saturating_sub(RESERVE.max(limit / 4));
    wanted.min(usize::try_from(room).unwrap_or(usize::MAX).max(FEWEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_left_for_other_files() {
        for (wanted, limit, expected) in [
            (10_000, None, 10_000),
            (10_000, Some(1_048_576), 10_000),
            (10_000, Some(1_024), 768),
            (100, Some(1_024), 100),
            (10_000, Some(128), 64),
            (10_000, Some(20), 8),
        ] {
            assert_eq!(within(wanted, limit), expected, "{wanted} of {limit:?}");
        }
    }
}
