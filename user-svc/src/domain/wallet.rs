//! What a wallet may hold, take and give.

use service_store::{Currency, Invalid, Money, SumError};

/// The most that top-ups may bring a wallet to: 10^12 minor units.
const MAX_BY_TOP_UPS: i64 = 1_000_000_000_000;

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

impl TopUp {
    const MAX: i64 = 100_000_000;

    pub(crate) fn try_new(currency: Currency, minor: i64) -> Result<Self, Invalid> {
        if !(1..=Self::MAX).contains(&minor) {
            return Err(Invalid("must be 1 to 100,000,000 minor units"));
        }
        Money::try_new(currency, minor).map(Self)
    }

    pub(crate) const fn amount(self) -> Money {
        self.0
    }
}

/// What a wallet holds after a top-up.
pub(crate) fn after_top_up(wallet: Money, top_up: TopUp) -> Result<Money, WalletError> {
    let sum = sum(wallet, top_up.amount())?;
    if sum.minor() > MAX_BY_TOP_UPS {
        return Err(WalletError::Full);
    }
    Ok(sum)
}

/// What a wallet holds after a payment. Paying nothing is always possible, in the wallet's currency.
pub(crate) fn after_debit(wallet: Money, price: Money) -> Result<Money, WalletError> {
    if wallet.currency() != price.currency() {
        return Err(other_currency(wallet, price));
    }
    // Neither is negative, so the difference fits.
    Money::try_new(wallet.currency(), wallet.minor() - price.minor()).map_err(|_| WalletError::Insufficient {
        holds: wallet.minor(),
        asked: price.minor(),
    })
}

/// What a wallet holds after it got a payment back. Not bounded as top-ups are: the wallet may have been topped up to the
/// brim since, and the money is the owner's all the same.
pub(crate) fn after_refund(wallet: Money, paid: Money) -> Result<Money, WalletError> {
    sum(wallet, paid)
}

fn sum(wallet: Money, amount: Money) -> Result<Money, WalletError> {
    wallet.plus(amount).map_err(|error| match error {
        SumError::Currencies => other_currency(wallet, amount),
        SumError::Overflow => WalletError::Full,
    })
}

fn other_currency(wallet: Money, asked: Money) -> WalletError {
    WalletError::Currency {
        wallet: wallet.currency(),
        asked: asked.currency(),
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
            after_top_up(euro(MAX_BY_TOP_UPS - 1), top_up(1))
                .expect("to the brim")
                .minor(),
            MAX_BY_TOP_UPS
        );
        assert_eq!(after_top_up(euro(MAX_BY_TOP_UPS), top_up(1)), Err(WalletError::Full));
    }

    #[test]
    fn currencies_do_not_mix() {
        let dollar = Money::try_new(Currency::try_new("USD").expect("a code"), 0).expect("nothing");
        let mixed = Err(WalletError::Currency {
            wallet: Currency::EUR,
            asked: dollar.currency(),
        });
        assert_eq!(after_debit(euro(1), dollar), mixed);
        assert_eq!(after_refund(euro(1), dollar), mixed);
    }

    /// A refund into a wallet that was topped up to the brim meanwhile must not get stuck on the brim.
    #[test]
    fn a_refund_fits_into_a_full_wallet() {
        assert_eq!(
            after_refund(euro(MAX_BY_TOP_UPS), euro(5)).expect("fits").minor(),
            MAX_BY_TOP_UPS + 5
        );
        assert_eq!(after_refund(euro(i64::MAX), euro(1)), Err(WalletError::Full));
    }

    proptest! {
        #[test]
        fn a_wallet_is_never_negative_and_loses_exactly_what_is_paid(holds in 0..i64::MAX, price in 0..i64::MAX) {
            match after_debit(euro(holds), euro(price)) {
                Ok(left) => {
                    prop_assert_eq!(i128::from(left.minor()), i128::from(holds) - i128::from(price));
                    prop_assert!(left.minor() >= 0);
                    prop_assert_eq!(after_refund(left, euro(price)).expect("it held it before"), euro(holds));
                }
                Err(error) => {
                    prop_assert_eq!(error, WalletError::Insufficient { holds, asked: price });
                    prop_assert!(price > holds);
                }
            }
        }
    }
}
