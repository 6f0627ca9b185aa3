//! Numbers, money and times as people write them. For reading only: nothing is computed from these texts.

use std::time::Duration;

use jiff::Timestamp;
use proto::common::v1::Money;

/// What somebody else said, without what could steer our terminal: escape sequences and other control characters, and
/// those that change the direction of writing (Unicode, UAX #9), which can make a text read as another one.
pub(crate) fn plain(text: &str) -> String {
    let steers = |letter: &char| {
        letter.is_control()
            || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    // Whole sequences first: without its escape character the rest of one would be text.
    anstream::adapter::strip_str(text)
        .to_string()
        .chars()
        .map(|letter| if letter.is_whitespace() { ' ' } else { letter })
        .filter(|letter| !steers(letter))
        .collect()
}

/// `1 ticket`, `2 tickets`.
pub(crate) fn count(number: usize, singular: &str) -> String {
    match number {
        1 => format!("1 {singular}"),
        _ => format!("{number} {singular}s"),
    }
}

/// Milliseconds below a second, seconds above: `0.8 ms`, `12 ms`, `3.4 s`, `2 min 05 s`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        0.0..0.001 => format!("{:.2} ms", seconds * 1e3),
        0.001..0.01 => format!("{:.1} ms", seconds * 1e3),
        0.01..1.0 => format!("{:.0} ms", seconds * 1e3),
        1.0..60.0 => format!("{seconds:.1} s"),
        _ => format!("{} min {:02} s", duration.as_secs() / 60, duration.as_secs() % 60),
    }
}

/// `49.90 EUR`. Minor units are written as hundredths; currencies that have none (ISO 4217) as whole numbers.
pub(crate) fn money(money: Option<&Money>) -> String {
    let Some(Money {
        currency_code,
        minor_units,
    }) = money
    else {
        return "-".to_owned();
    };
    let currency_code = plain(currency_code);
    match currency_code.as_str() {
        "JPY" | "KRW" | "VND" | "CLP" | "ISK" => format!("{minor_units} {currency_code}"),
        _ => {
            let sign = if *minor_units < 0 { "-" } else { "" };
            let units = minor_units.unsigned_abs();
            format!("{sign}{}.{:02} {currency_code}", units / 100, units % 100)
        }
    }
}

/// A moment in UTC to the second; `-` where there is none or where it is out of range.
pub(crate) fn timestamp(timestamp: Option<&prost_types::Timestamp>) -> String {
    timestamp
        .and_then(|at| Timestamp::new(at.seconds, at.nanos).ok())
        .map_or_else(|| "-".to_owned(), |at| at.strftime("%Y-%m-%d %H:%M").to_string())
}

/// A moment for a log line: UTC with milliseconds, RFC 3339.
pub(crate) fn instant(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// `a, b or c`.
pub(crate) fn one_of<S: AsRef<str>>(names: &[S]) -> String {
    match names {
        [] => "nothing".to_owned(),
        [only] => only.as_ref().to_owned(),
        [first @ .., last] => {
            let first: Vec<&str> = first.iter().map(AsRef::as_ref).collect();
            format!("{} or {}", first.join(", "), last.as_ref())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_keep_two_or_three_digits() {
        let check = |micros: u64, expected: &str| assert_eq!(duration(Duration::from_micros(micros)), expected);
        check(820, "0.82 ms");
        check(4_210, "4.2 ms");
        check(42_000, "42 ms");
        check(3_400_000, "3.4 s");
        check(125_000_000, "2 min 05 s");
    }

    #[test]
    fn money_is_written_from_minor_units() {
        let check = |minor_units: i64, code: &str, expected: &str| {
            let value = Money {
                currency_code: code.to_owned(),
                minor_units,
            };
            assert_eq!(money(Some(&value)), expected);
        };
        check(4990, "EUR", "49.90 EUR");
        check(5, "EUR", "0.05 EUR");
        check(-150, "EUR", "-1.50 EUR");
        check(i64::MIN, "EUR", "-92233720368547758.08 EUR");
        check(500, "JPY", "500 JPY");
        assert_eq!(money(None), "-");
    }

    #[test]
    fn plain_text_stays_and_sequences_go() {
        assert_eq!(plain("Žižkov 東京, row 3"), "Žižkov 東京, row 3");
        assert_eq!(plain("\u{1b}[31mred\u{1b}[0m\u{8}\u{7f}\u{9b}"), "red");
        assert_eq!(plain("a\nb\tc"), "a b c");
    }

    #[test]
    fn choices_read_as_a_sentence() {
        assert_eq!(one_of(&["a", "b", "c"]), "a, b or c");
        assert_eq!(one_of(&["a"]), "a");
        assert_eq!(one_of::<&str>(&[]), "nothing");
    }
}
