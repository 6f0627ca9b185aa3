//! What a seat may cost.

use service_store::{Currency, Invalid, Money};

/// What a seat costs: 0 to 10^12 minor units. Ten of the dearest seats still fit 900,000 times into the type of a sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Price(Money);

impl Price {
    const MAX: i64 = 1_000_000_000_000;

    pub(crate) fn try_new(currency: Currency, minor: i64) -> Result<Self, Invalid> {
        const LIMIT: Invalid = Invalid("must be 0 to 1,000,000,000,000 minor units");
        if minor > Self::MAX {
            return Err(LIMIT);
        }
        Money::try_new(currency, minor).map(Self).map_err(|_| LIMIT)
    }

    pub(crate) const fn amount(self) -> Money {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::hold::MAX_SEATS;

    #[test]
    fn a_price_keeps_its_limits() {
        for good in [0, 1, Price::MAX] {
            let price = Price::try_new(Currency::EUR, good).expect("in range");
            assert_eq!(price.amount().minor(), good);
        }
        for bad in [i64::MIN, -1, Price::MAX + 1, i64::MAX] {
            assert!(Price::try_new(Currency::EUR, bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_dearest_hold_has_a_sum() {
        let dearest = Price::try_new(Currency::EUR, Price::MAX).expect("in range").amount();
        let sum = (0..MAX_SEATS).try_fold(Money::zero(Currency::EUR), |sum, _| sum.plus(dearest));
        assert_eq!(sum.expect("it fits").minor(), 10 * Price::MAX);
    }
}
