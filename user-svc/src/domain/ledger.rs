//! Transfers between accounts. Each takes from one what it gives to another, by construction: money is neither made nor lost.

use service_store::{Currency, Money, Timestamp};
use uuid::Uuid;

/// Who has money, as the ledger sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Account {
    /// A user's. Never below zero.
    Wallet(Uuid),
    /// Where top-ups come from. As far below zero as all wallets and sales together are above it.
    External,
    /// What an event has taken.
    Sales(Uuid),
}

/// Why money moves. With a reference it is unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Into a wallet from outside; by the request.
    TopUp,
    /// From a wallet to an event's sales; by the order.
    Debit,
    /// Back, from a purchase that failed after it was paid; by the order.
    Refund,
    /// Back, for tickets that were given back; by the order.
    Return,
}

/// Money that moves between a wallet and another account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) kind: Kind,
    /// The request or the order.
    pub(crate) reference: Uuid,
    user_id: Uuid,
    other: Account,
    amount: Money,
}

/// What an account gets, or gives where it is negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Posting {
    pub(crate) account: Account,
    pub(crate) amount: i64,
}

/// A line of a wallet's statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The how-manieth of the wallet, from 1.
    pub(crate) number: i64,
    pub(crate) kind: Kind,
    pub(crate) reference: Uuid,
    /// What it added; negative for a debit.
    pub(crate) amount: i64,
    pub(crate) balance_after: Money,
    pub(crate) at: Timestamp,
}

impl Transfer {
    pub(crate) fn top_up(request_id: Uuid, user_id: Uuid, amount: Money) -> Self {
        Self {
            kind: Kind::TopUp,
            reference: request_id,
            user_id,
            other: Account::External,
            amount,
        }
    }

    pub(crate) fn debit(order_id: Uuid, user_id: Uuid, event_id: Uuid, price: Money) -> Self {
        Self {
            kind: Kind::Debit,
            reference: order_id,
            user_id,
            other: Account::Sales(event_id),
            amount: price,
        }
    }

    pub(crate) fn refund(order_id: Uuid, user_id: Uuid, event_id: Uuid, paid: Money) -> Self {
        Self {
            kind: Kind::Refund,
            ..Self::debit(order_id, user_id, event_id, paid)
        }
    }

    pub(crate) fn give_back(order_id: Uuid, user_id: Uuid, event_id: Uuid, paid: Money) -> Self {
        Self {
            kind: Kind::Return,
            ..Self::debit(order_id, user_id, event_id, paid)
        }
    }

    /// The wallet's posting, then the other account's. They sum to zero.
    pub(crate) fn postings(&self) -> [Posting; 2] {
        // No amount is negative, so each has its opposite.
        let amount = match self.kind {
            Kind::TopUp | Kind::Refund | Kind::Return => self.amount.minor(),
            Kind::Debit => -self.amount.minor(),
        };
        let posting = |account, amount| Posting { account, amount };
        [
            posting(Account::Wallet(self.user_id), amount),
            posting(self.other, -amount),
        ]
    }

    pub(crate) fn currency(&self) -> Currency {
        self.amount.currency()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_transfer_sums_to_zero(minor in 0..=i64::MAX) {
            let money = Money::try_new(Currency::EUR, minor).expect("not negative");
            let (a, b, c) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
            for transfer in [
                Transfer::top_up(a, b, money),
                Transfer::debit(a, b, c, money),
                Transfer::refund(a, b, c, money),
                Transfer::give_back(a, b, c, money),
            ] {
                let [wallet, other] = transfer.postings();
                prop_assert_eq!(i128::from(wallet.amount) + i128::from(other.amount), 0);
                prop_assert_eq!(wallet.account, Account::Wallet(b));
                prop_assert_eq!(wallet.amount <= 0, transfer.kind == Kind::Debit || minor == 0);
            }
        }
    }
}
