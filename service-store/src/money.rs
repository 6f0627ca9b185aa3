//! Amounts as integers of a currency's minor unit. Never a floating point number, never a silent overflow.

use std::fmt;

use crate::text::Invalid;

/// An ISO 4217 code: three capitals.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency([u8; 3]);

/// An amount that is not negative, in one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Money {
    currency: Currency,
    minor: i64,
}

/// Why two amounts have no sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SumError {
    /// They are of different currencies.
    #[error("the amounts are of different currencies")]
    Currencies,
    /// The sum does not fit.
    #[error("the sum is too large")]
    Overflow,
}

impl Currency {
    /// The euro.
    pub const EUR: Self = Self(*b"EUR");

    /// Takes three capital letters.
    ///
    /// # Errors
    /// When they are something else. Whether ISO 4217 knows the code is not looked up.
    pub fn try_new(code: &str) -> Result<Self, Invalid> {
        match *code.as_bytes() {
            [a, b, c] if [a, b, c].iter().all(u8::is_ascii_uppercase) => Ok(Self([a, b, c])),
            _ => Err(Invalid(
                "must be an ISO 4217 code: three capital letters, for example EUR",
            )),
        }
    }

    /// The code.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only ASCII capitals get in.
        std::str::from_utf8(&self.0).unwrap_or("XXX")
    }
}

impl Money {
    /// An amount of `minor` units, 0 or more. How much more is for those to say who name the amount.
    ///
    /// # Errors
    /// When it is negative.
    pub fn try_new(currency: Currency, minor: i64) -> Result<Self, Invalid> {
        if minor < 0 {
            return Err(Invalid("must not be negative"));
        }
        Ok(Self { currency, minor })
    }

    /// Nothing, in `currency`.
    #[must_use]
    pub const fn zero(currency: Currency) -> Self {
        Self { currency, minor: 0 }
    }

    /// The sum of two amounts of one currency.
    ///
    /// # Errors
    /// [`SumError`], when there is none.
    pub fn plus(self, other: Self) -> Result<Self, SumError> {
        if self.currency != other.currency {
            return Err(SumError::Currencies);
        }
        let minor = self.minor.checked_add(other.minor).ok_or(SumError::Overflow)?;
        Ok(Self { minor, ..self })
    }

    /// Its currency.
    #[must_use]
    pub const fn currency(self) -> Currency {
        self.currency
    }

    /// Minor units (cents for EUR).
    #[must_use]
    pub const fn minor(self) -> i64 {
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

    fn euro(minor: i64) -> Money {
        Money::try_new(Currency::EUR, minor).expect("not negative")
    }

    proptest! {
        #[test]
        fn no_amount_is_negative(minor in any::<i64>()) {
            prop_assert_eq!(Money::try_new(Currency::EUR, minor).is_err(), minor < 0);
        }

        #[test]
        fn a_sum_is_exact_or_an_error(a in 0..=i64::MAX, b in 0..=i64::MAX) {
            let exact = i128::from(a) + i128::from(b);
            match euro(a).plus(euro(b)) {
                Ok(sum) => prop_assert_eq!(i128::from(sum.minor()), exact),
                Err(error) => {
                    prop_assert_eq!(error, SumError::Overflow);
                    prop_assert!(exact > i128::from(i64::MAX));
                }
            }
        }
    }

    #[test]
    fn overflow_and_mixed_currencies_have_no_sum() {
        assert_eq!(euro(i64::MAX).plus(euro(1)), Err(SumError::Overflow));
        assert_eq!(euro(i64::MAX).plus(Money::zero(Currency::EUR)), Ok(euro(i64::MAX)));
        let dollar = Money::try_new(Currency::try_new("USD").expect("a code"), 1).expect("not negative");
        assert_eq!(euro(1).plus(dollar), Err(SumError::Currencies));
    }
}
