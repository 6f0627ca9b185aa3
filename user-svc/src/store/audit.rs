//! The books, checked: what must be true of money at every moment. All of it is read as it was at one moment.

use std::collections::BTreeMap;

use super::{Store, StoreError, rows};
use crate::audit::{Books, Totals};

/// What must be true, and how many rows say otherwise.
const CHECKS: [(&str, &str); 8] = [
    (
        "a transfer has two postings, which sum to zero",
        "SELECT count(*) FROM (
           SELECT transfers.seq FROM transfers LEFT JOIN postings ON postings.transfer = transfers.seq
           GROUP BY transfers.seq HAVING count(postings.account) <> 2 OR coalesce(sum(postings.amount), 1) <> 0) AS wrong",
    ),
    (
        "a wallet's postings are numbered from 1 without gaps, and each balance is the one before it and its amount",
        "SELECT count(*) FROM (
           SELECT number - lag(number, 1, CAST(0 AS BIGINT)) OVER wallet AS step,
                  balance_after - amount - lag(balance_after, 1, CAST(0 AS BIGINT)) OVER wallet AS off
           FROM postings WHERE number IS NOT NULL WINDOW wallet AS (PARTITION BY account ORDER BY number)) AS chain
         WHERE step <> 1 OR off <> 0",
    ),
    (
        "no wallet is below zero",
        "SELECT count(*) FROM postings WHERE balance_after < 0",
    ),
    (
        "in each currency, wallets and sales have what came from outside",
        "SELECT count(*) FROM (
           SELECT accounts.currency FROM postings JOIN accounts ON accounts.id = postings.account
           GROUP BY accounts.currency HAVING sum(postings.amount) <> 0) AS wrong",
    ),
    (
        "every posting is of an account, and every wallet's of a user",
        "SELECT count(*) FROM postings LEFT JOIN accounts ON accounts.id = postings.account
         WHERE accounts.id IS NULL
            OR (accounts.kind = 'wallet' AND NOT EXISTS (SELECT 1 FROM users WHERE users.id = accounts.owner))",
    ),
    (
        "a refund gives back what a debit of the same order took",
        "SELECT count(*) FROM transfers AS refunds JOIN postings AS given ON given.transfer = refunds.seq
         WHERE refunds.kind IN ('refund', 'return') AND given.number IS NOT NULL AND NOT EXISTS (
           SELECT 1 FROM transfers AS debits JOIN postings AS taken ON taken.transfer = debits.seq
           WHERE debits.kind = 'debit' AND debits.reference = refunds.reference
             AND taken.account = given.account AND taken.amount = -given.amount)",
    ),
    (
        "what was paid and given back for an order is what its step says",
        "SELECT count(*) FROM (
           SELECT step, EXISTS (SELECT 1 FROM transfers WHERE kind = 'debit' AND reference = orders.id) AS paid,
                  EXISTS (SELECT 1 FROM transfers WHERE kind IN ('refund', 'return') AND reference = orders.id) AS back
           FROM orders) AS paying
         WHERE (step IN ('begin', 'hold', 'debit') AND paid)
            OR (step IN ('confirm', 'refund', 'succeeded', 'revoke', 'repay') AND (back OR NOT paid))
            OR (step IN ('release', 'failed', 'refunded') AND paid AND NOT back)",
    ),
    (
        "an order that was refunded has its money back, and nobody else gets it that way",
        "SELECT count(*) FROM orders
         WHERE (step = 'refunded') <> EXISTS (SELECT 1 FROM transfers WHERE kind = 'return' AND reference = orders.id)",
    ),
];

/// What each account has: a wallet's are added up, and so is what came from outside.
const TOTALS: &str =
    "SELECT accounts.currency, accounts.kind, CASE accounts.kind WHEN 'sales' THEN accounts.owner ELSE '' END,
        CAST(sum(postings.amount) AS BIGINT)
 FROM postings JOIN accounts ON accounts.id = postings.account GROUP BY 1, 2, 3";

/// Orders that are paid for and not sold.
const UNSOLD: &str = "SELECT count(*) FROM orders WHERE step IN ('confirm', 'refund', 'repay')";

impl Store {
    /// What the books say, and what is wrong with them.
    pub(crate) async fn audit(&self) -> Result<Books, StoreError> {
        let mut moment = self.database.snapshot().await?;
        let mut wrong = Vec::new();
        for (what, select) in CHECKS {
            let count: i64 = sqlx::query_scalar(select).fetch_one(&mut *moment).await?;
            if count != 0 {
                wrong.push(format!("{count} times not: {what}"));
            }
        }
        let sums: Vec<(String, String, String, i64)> = sqlx::query_as(TOTALS).fetch_all(&mut *moment).await?;
        let mut money: BTreeMap<String, Totals> = BTreeMap::new();
        for (currency, kind, event, sum) in sums {
            let totals = money.entry(currency).or_default();
            match kind.as_str() {
                "wallet" => totals.wallets = sum,
                "sales" => drop(totals.sales.insert(rows::uuid(&event)?, sum)),
                _ => totals.put_in = -sum,
            }
        }
        let unsold: i64 = sqlx::query_scalar(UNSOLD).fetch_one(&mut *moment).await?;
        Ok(Books {
            wrong,
            money,
            paid_unsold: unsold.unsigned_abs(),
        })
    }
}
