//! Amounts as integers of a currency's minor unit. Never a floating point number, never a silent overflow.

use std::fmt;

use super::text::Invalid;

/// An ISO 4217 code: three capitals.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Currency([u8; 3]);

/// An amount that is not negative, in one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Money {
    currency: Currency,
    minor: i64,
}

/// Why two amounts have no sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SumError {
    /// They are of different currencies.
    #[error("the amounts are of different currencies")]
    Currencies,
    /// The sum does not fit.
    #[error("the sum is too large")]
    Overflow,
}

impl Currency {
    /// The euro.
    pub(crate) const EUR: Self = Self(*b"EUR");

    /// Takes three capital letters.
    pub(crate) fn try_new(code: &str) -> Result<Self, Invalid> {
        match *code.as_bytes() {
            [a, b, c] if [a, b, c].iter().all(u8::is_ascii_uppercase) => Ok(Self([a, b, c])),
            _ => Err(Invalid(
                "must be an ISO 4217 code: three capital letters, for example EUR",
            )),
        }
    }

    /// The code.
    pub(crate) fn as_str(&self) -> &str {
        // Only ASCII capitals get in.
        std::str::from_utf8(&self.0).unwrap_or("XXX")
    }
}

impl Money {
    /// The most that a request may carry: 10^12 minor units. Ten of them still fit 9 million times into the type.
    pub(crate) const MAX_IN_REQUEST: i64 = 1_000_000_000_000;

    /// An amount of 0 to 10^12 minor units.
    pub(crate) fn try_new(currency: Currency, minor: i64) -> Result<Self, Invalid> {
        if !(0..=Self::MAX_IN_REQUEST).contains(&minor) {
            return Err(Invalid("must be 0 to 1,000,000,000,000 minor units"));
        }
        Ok(Self { currency, minor })
    }

    /// Nothing, in `currency`.
    pub(crate) const fn zero(currency: Currency) -> Self {
        Self { currency, minor: 0 }
    }

    /// The sum of two amounts of one currency.
    pub(crate) fn plus(self, other: Self) -> Result<Self, SumError> {
        if self.currency != other.currency {
            return Err(SumError::Currencies);
        }
        let minor = self.minor.checked_add(other.minor).ok_or(SumError::Overflow)?;
        Ok(Self { minor, ..self })
    }

    /// Its currency.
    pub(crate) const fn currency(self) -> Currency {
        self.currency
    }

    /// Minor units (cents for EUR).
    pub(crate) const fn minor(self) -> i64 {
        self.minor
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_three_capitals_are_a_currency() {
        assert_eq!(Currency::try_new("EUR"), Ok(Currency::EUR));
        for bad in ["", "EU", "EURO", "eur", "E1R", "ÄÖ"] {
            assert!(Currency::try_new(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_sum_is_exact_or_an_error(a in any::<i64>(), b in any::<i64>()) {
            match (Money::try_new(Currency::EUR, a), Money::try_new(Currency::EUR, b)) {
                (Ok(left), Ok(right)) => {
                    let sum = left.plus(right).expect("two request amounts always fit");
                    prop_assert_eq!(i128::from(sum.minor()), i128::from(a) + i128::from(b));
                }
                (left, right) => {
                    prop_assert_eq!(left.is_err(), !(0..=Money::MAX_IN_REQUEST).contains(&a));
                    prop_assert_eq!(right.is_err(), !(0..=Money::MAX_IN_REQUEST).contains(&b));
                }
            }
        }
    }

    #[test]
    fn overflow_and_mixed_currencies_have_no_sum() {
        let much = Money {
            currency: Currency::EUR,
            minor: i64::MAX,
        };
        let cent = Money {
            currency: Currency::EUR,
            minor: 1,
        };
        assert_eq!(much.plus(cent), Err(SumError::Overflow));
        let dollar = Money {
            currency: Currency::try_new("USD").expect("a code"),
            minor: 1,
        };
        assert_eq!(cent.plus(dollar), Err(SumError::Currencies));
    }
}
