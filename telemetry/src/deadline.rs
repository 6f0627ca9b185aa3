//! The deadline of the call that the current task works for.
//!
//! A server's deadline layer opens a scope around the handler; a client reads [`Deadline::current`] and sends what
//! remains, so that time already spent is never granted twice. Deadlines travel as a remaining duration and not as a wall
//! time, as the gRPC specification demands, since clocks differ. Not here: enforcing anything.

use std::{fmt, future::Future, time::Duration};

use tokio::{task::futures::TaskLocalFuture, time::Instant};

tokio::task_local! {
    static CURRENT: Deadline;
}

/// The request header that carries the remaining time.
pub const GRPC_TIMEOUT: &str = "grpc-timeout";

/// Longest time a `grpc-timeout` header can express: 99,999,999 hours.
const LONGEST: Duration = Duration::from_secs(99_999_999 * 3600);
/// What an overflowing deadline becomes: far enough to mean "never", near enough for the clock to represent.
const FAR_FUTURE: Duration = Duration::from_secs(86_400 * 365 * 30);

/// The moment after which nobody waits for the answer any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline `timeout` from now; one beyond what the clock can represent is some 30 years away.
    pub fn after(timeout: Duration) -> Self {
        let now = Instant::now();
        Self(now.checked_add(timeout.min(FAR_FUTURE)).unwrap_or(now))
    }

    /// The deadline at that moment.
    pub fn at(moment: Instant) -> Self {
        Self(moment)
    }

    /// The deadline of the call that this task works for, if it has one.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|deadline| *deadline).ok()
    }

    /// The moment itself.
    pub fn instant(self) -> Instant {
        self.0
    }

    /// What is left; zero once it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    pub fn is_expired(self) -> bool {
        self.remaining().is_zero()
    }

    /// Runs `future` with this as [`Deadline::current`]. It does not stop the future when time is up.
    pub fn scope<F: Future>(self, future: F) -> TaskLocalFuture<Self, F> {
        CURRENT.scope(self, future)
    }

    /// Runs `f` with this as [`Deadline::current`].
    pub fn sync_scope<F: FnOnce() -> R, R>(self, f: F) -> R {
        CURRENT.sync_scope(self, f)
    }
}

impl fmt::Display for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in {:?}", self.remaining())
    }
}

/// A `grpc-timeout` value that the gRPC specification does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTimeout {
    /// No digits, or more than 8.
    #[error("a timeout has 1 to 8 digits")]
    Digits,
    /// The last character is not one of `H`, `M`, `S`, `m`, `u`, `n`.
    #[error("a timeout ends in one of the units H, M, S, m, u, n")]
    Unit,
}

/// Reads a `grpc-timeout` value: 1 to 8 ASCII digits and a unit (`H`ours, `M`inutes, `S`econds, `m`illi-, `u` micro-,
/// `n`anoseconds), as the gRPC over HTTP/2 specification writes it. `0n` is valid and means "already too late".
///
/// # Errors
/// [`InvalidTimeout`] for anything else: signs, spaces, fractions, a ninth digit.
pub fn parse_grpc_timeout(value: &str) -> Result<Duration, InvalidTimeout> {
    let Some((&unit, digits)) = value.as_bytes().split_last() else {
        return Err(InvalidTimeout::Digits);
    };
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(InvalidTimeout::Digits);
    }
    let amount = digits
        .iter()
        .fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Ok(Duration::from_secs(amount * 3600)),
        b'M' => Ok(Duration::from_secs(amount * 60)),
        b'S' => Ok(Duration::from_secs(amount)),
        b'm' => Ok(Duration::from_millis(amount)),
        b'u' => Ok(Duration::from_micros(amount)),
        b'n' => Ok(Duration::from_nanos(amount)),
        _ => Err(InvalidTimeout::Unit),
    }
}

/// Writes a `grpc-timeout` value in the finest unit that fits 8 digits, rounded down: a callee never gets more time than
/// its caller has.
pub fn format_grpc_timeout(timeout: Duration) -> String {
    const FITS: u128 = 100_000_000;
    let timeout = timeout.min(LONGEST);
    let seconds = u128::from(timeout.as_secs());
    for (amount, unit) in [
        (timeout.as_nanos(), 'n'),
        (timeout.as_micros(), 'u'),
        (timeout.as_millis(), 'm'),
        (seconds, 'S'),
        (seconds / 60, 'M'),
    ] {
        if amount < FITS {
            return format!("{amount}{unit}");
        }
    }
    format!("{}H", seconds / 3600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_specification_writes_them() {
        for (value, expected) in [
            ("1H", Ok(Duration::from_secs(3600))),
            ("2M", Ok(Duration::from_secs(120))),
            ("3S", Ok(Duration::from_secs(3))),
            ("150m", Ok(Duration::from_millis(150))),
            ("42u", Ok(Duration::from_micros(42))),
            ("7n", Ok(Duration::from_nanos(7))),
            ("0n", Ok(Duration::ZERO)),
            ("00000001S", Ok(Duration::from_secs(1))),
            ("99999999H", Ok(LONGEST)),
            ("99999999n", Ok(Duration::from_nanos(99_999_999))),
            ("", Err(InvalidTimeout::Digits)),
            ("S", Err(InvalidTimeout::Digits)),
            ("123456789n", Err(InvalidTimeout::Digits)),
            ("1", Err(InvalidTimeout::Digits)),
            ("12", Err(InvalidTimeout::Unit)),
            ("1s", Err(InvalidTimeout::Unit)),
            ("-1S", Err(InvalidTimeout::Digits)),
            ("+1S", Err(InvalidTimeout::Digits)),
            ("1.5S", Err(InvalidTimeout::Digits)),
            (" 1S", Err(InvalidTimeout::Digits)),
            ("1S ", Err(InvalidTimeout::Digits)),
            ("١S", Err(InvalidTimeout::Digits)),
        ] {
            assert_eq!(parse_grpc_timeout(value), expected, "{value:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_back_and_never_longer() {
        for timeout in [
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_nanos(99_999_999),
            Duration::from_nanos(100_000_001),
            Duration::from_millis(1500),
            Duration::from_secs(99_999),
            Duration::from_secs(100_000_000),
            Duration::from_secs(6_000_000_123),
            Duration::MAX,
        ] {
            let written = format_grpc_timeout(timeout);
            let read = parse_grpc_timeout(&written).expect("valid");
            assert!(read <= timeout, "{timeout:?} became {written}");
            // Precision is lost only in the ninth significant digit.
            assert!(
                timeout.min(LONGEST).as_secs_f64() - read.as_secs_f64() <= timeout.as_secs_f64() / 1e6,
                "{written}"
            );
        }
        assert_eq!(format_grpc_timeout(Duration::from_secs(1)), "1000000u");
        assert_eq!(format_grpc_timeout(Duration::ZERO), "0n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_scope_shows_the_deadline_to_what_runs_in_it() {
        assert_eq!(Deadline::current(), None);
        let deadline = Deadline::after(Duration::from_secs(2));
        deadline
            .scope(async {
                tokio::time::sleep(Duration::from_millis(500)).await;
                let current = Deadline::current().expect("in scope");
                assert_eq!(current, deadline);
                assert_eq!(current.remaining(), Duration::from_millis(1500));
                tokio::time::sleep(Duration::from_secs(2)).await;
                assert!(current.is_expired());
                assert_eq!(current.remaining(), Duration::ZERO);
            })
            .await;
        assert_eq!(Deadline::current(), None);
        assert_eq!(deadline.sync_scope(Deadline::current), Some(deadline));
    }

    #[tokio::test(start_paused = true)]
    async fn a_deadline_beyond_the_clock_is_far_but_valid() {
        assert!(Deadline::after(Duration::MAX).remaining() > Duration::from_secs(86_400 * 365));
    }
}
