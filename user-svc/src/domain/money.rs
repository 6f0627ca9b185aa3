//! Amounts as integers of a currency's minor unit, and what a wallet may hold. Never a floating point number, never a silent
//! overflow.

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

/// An amount that may be added to a wallet at once: 1 to 10^8 minor units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TopUp(Money);

/// Why a wallet does not take or give an amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WalletError {
    /// The wallet is kept in another currency.
    #[error("the wallet is kept in {wallet:?}, not in {asked:?}")]
    Currency {
        /// The wallet's.
        wallet: Currency,
        /// The amount's.
        asked: Currency,
    },
    /// The wallet would hold more than it may.
    #[error("a wallet holds at most 1,000,000,000,000 minor units")]
    Full,
    /// The wallet holds less than is asked of it.
    #[error("the wallet holds {holds} minor units, {asked} are needed; top it up")]
    Insufficient {
        /// What it holds.
        holds: i64,
        /// What is asked.
        asked: i64,
    },
}

impl Currency {
    /// The euro: the currency of a wallet unless told otherwise.
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

    pub(crate) fn as_str(&self) -> &str {
        // Only ASCII capitals get in.
        std::str::from_utf8(&self.0).unwrap_or("XXX")
    }
}

impl Money {
    /// The most that top-ups may bring a wallet to: 10^12 minor units.
    pub(crate) const MAX_IN_WALLET: i64 = 1_000_000_000_000;

    /// An amount that is not negative. Prices and balances come from stores, which may hold more than one request may carry.
    pub(crate) fn try_new(currency: Currency, minor: i64) -> Result<Self, Invalid> {
        if minor < 0 {
            return Err(Invalid("must not be negative"));
        }
        Ok(Self { currency, minor })
    }

    pub(crate) const fn currency(self) -> Currency {
        self.currency
    }

    /// Minor units (cents for EUR).
    pub(crate) const fn minor(self) -> i64 {
        self.minor
    }

    /// What the wallet holds after a top-up.
    pub(crate) fn topped_up(self, TopUp(amount): TopUp) -> Result<Self, WalletError> {
        self.same_currency(amount)?;
        match self.minor.checked_add(amount.minor) {
            Some(minor) if minor <= Self::MAX_IN_WALLET => Ok(Self { minor, ..self }),
            _ => Err(WalletError::Full),
        }
    }

    /// What the wallet holds after a payment. Paying nothing is always possible, in the wallet's currency.
    pub(crate) fn debited(self, amount: Self) -> Result<Self, WalletError> {
        self.same_currency(amount)?;
        if amount.minor > self.minor {
            return Err(WalletError::Insufficient {
                holds: self.minor,
                asked: amount.minor,
            });
        }
        Ok(Self {
            minor: self.minor - amount.minor,
            ..self
        })
    }

    /// What the wallet holds after it got a payment back. Not bounded by [`Money::MAX_IN_WALLET`]: the wallet may have been
    /// topped up to the brim since, and the money is the owner's all the same.
    pub(crate) fn refunded(self, amount: Self) -> Result<Self, WalletError> {
        self.same_currency(amount)?;
        let minor = self.minor.checked_add(amount.minor).ok_or(WalletError::Full)?;
        Ok(Self { minor, ..self })
    }

    fn same_currency(self, other: Self) -> Result<(), WalletError> {
        if self.currency != other.currency {
            return Err(WalletError::Currency {
                wallet: self.currency,
                asked: other.currency,
            });
        }
        Ok(())
    }
}

impl TopUp {
    const MAX: i64 = 100_000_000;

    pub(crate) fn try_new(currency: Currency, minor: i64) -> Result<Self, Invalid> {
        if !(1..=Self::MAX).contains(&minor) {
            return Err(Invalid("must be 1 to 100,000,000 minor units"));
        }
        Ok(Self(Money { currency, minor }))
    }

    pub(crate) const fn amount(self) -> Money {
        self.0
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

    fn euro(minor: i64) -> Money {
        Money::try_new(Currency::EUR, minor).expect("not negative")
    }

    fn top_up(minor: i64) -> TopUp {
        TopUp::try_new(Currency::EUR, minor).expect("in range")
    }

    #[test]
    fn only_sensible_amounts_top_up() {
        for bad in [i64::MIN, -1, 0, 100_000_001, i64::MAX] {
            assert!(TopUp::try_new(Currency::EUR, bad).is_err(), "{bad}");
        }
        assert_eq!(
            euro(Money::MAX_IN_WALLET - 1)
                .topped_up(top_up(1))
                .expect("to the brim")
                .minor(),
            Money::MAX_IN_WALLET
        );
        assert_eq!(euro(Money::MAX_IN_WALLET).topped_up(top_up(1)), Err(WalletError::Full));
    }

    #[test]
    fn currencies_do_not_mix() {
        let dollar = Money::try_new(Currency::try_new("USD").expect("a code"), 0).expect("nothing");
        let mixed = Err(WalletError::Currency {
            wallet: Currency::EUR,
            asked: dollar.currency(),
        });
        assert_eq!(euro(1).debited(dollar), mixed);
        assert_eq!(euro(1).refunded(dollar), mixed);
    }

    /// A refund into a wallet that was topped up to the brim meanwhile must not get stuck on the brim.
    #[test]
    fn a_refund_fits_into_a_full_wallet() {
        assert_eq!(
            euro(Money::MAX_IN_WALLET).refunded(euro(5)).expect("fits").minor(),
            Money::MAX_IN_WALLET + 5
        );
        assert_eq!(euro(i64::MAX).refunded(euro(1)), Err(WalletError::Full));
    }

    proptest! {
        #[test]
        fn a_wallet_is_never_negative_and_loses_exactly_what_is_paid(holds in 0..i64::MAX, price in 0..i64::MAX) {
            match euro(holds).debited(euro(price)) {
                Ok(left) => {
                    prop_assert_eq!(i128::from(left.minor()), i128::from(holds) - i128::from(price));
                    prop_assert!(left.minor() >= 0);
                    prop_assert_eq!(left.refunded(euro(price)).expect("it held it before"), euro(holds));
                }
                Err(error) => {
                    prop_assert_eq!(error, WalletError::Insufficient { holds, asked: price });
                    prop_assert!(price > holds);
                }
            }
        }
    }
}
