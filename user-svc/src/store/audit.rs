//! The books, checked: what must be true of money at every moment. Each check is one statement, and so of one moment.

use super::{Store, StoreError};

/// What must be true, and how many rows say otherwise.
const CHECKS: [(&str, &str); 7] = [
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
        "wallets and sales have what came from outside",
        "SELECT CASE WHEN coalesce(sum(amount), 0) = 0 THEN CAST(0 AS BIGINT) ELSE 1 END FROM postings",
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
         WHERE refunds.kind = 'refund' AND given.number IS NOT NULL AND NOT EXISTS (
           SELECT 1 FROM transfers AS debits JOIN postings AS taken ON taken.transfer = debits.seq
           WHERE debits.kind = 'debit' AND debits.reference = refunds.reference
             AND taken.account = given.account AND taken.amount = -given.amount)",
    ),
    (
        "an order that succeeded was paid and not refunded, one that failed kept nothing",
        "SELECT count(*) FROM orders
         WHERE (step = 'succeeded'
                AND (NOT EXISTS (SELECT 1 FROM transfers WHERE kind = 'debit' AND reference = orders.id)
                     OR EXISTS (SELECT 1 FROM transfers WHERE kind = 'refund' AND reference = orders.id)))
            OR (step = 'failed'
                AND EXISTS (SELECT 1 FROM transfers WHERE kind = 'debit' AND reference = orders.id)
                AND NOT EXISTS (SELECT 1 FROM transfers WHERE kind = 'refund' AND reference = orders.id))",
    ),
];

impl Store {
    /// What is wrong with the books; nothing, if they are right.
    pub(crate) async fn audit(&self) -> Result<Vec<String>, StoreError> {
        let mut wrong = Vec::new();
        for (what, select) in CHECKS {
            let count: i64 = sqlx::query_scalar(select).fetch_one(self.database.reader()).await?;
            if count != 0 {
                wrong.push(format!("{count} times not: {what}"));
            }
        }
        Ok(wrong)
    }
}
