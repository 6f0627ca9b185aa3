//! Double entry: transfers and their postings, and what wallets hold by them.
//!
//! A wallet's postings are numbered, each says what the wallet holds after it, and the last one is its balance. Whoever makes the
//! next one has locked the user's row, and the unique index on (account, number) is the last line. Sales and external have no
//! numbers: all buyers of an event add to its sales at once, and a sum is made when somebody asks.

use service_store::{Connection, Money, Write};
use uuid::Uuid;

use super::{Store, StoreError, rows, users};
use crate::domain::ledger::{Account, Entry, Kind, Posting, Transfer};

/// A transfer that was made before, as the wallet has it.
pub(super) struct Made {
    pub(super) user_id: Uuid,
    pub(super) amount: i64,
    pub(super) balance_after: i64,
}

impl Store {
    /// At most `limit` entries of a user's wallet before the one with that number, newest first.
    pub(crate) async fn statement(
        &self,
        user_id: Uuid,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Entry>, StoreError> {
        let mut reader = self.database.reader().acquire().await?;
        let wallet = users::user(&mut reader, user_id).await?.balance;
        let found: Vec<(i64, String, String, i64, i64, i64)> = sqlx::query_as(
            "SELECT postings.number, transfers.kind, transfers.reference, postings.amount, postings.balance_after, transfers.at
             FROM postings JOIN transfers ON transfers.seq = postings.transfer
             WHERE postings.account = $1 AND postings.number < $2 ORDER BY postings.number DESC LIMIT $3",
        )
        .bind(account(Account::Wallet(user_id), wallet))
        .bind(before.unwrap_or(i64::MAX))
        .bind(i64::from(limit))
        .fetch_all(&mut *reader)
        .await?;
        let entry = |(number, kind, reference, amount, after, at): (i64, String, String, i64, i64, i64)| {
            Ok(Entry {
                number,
                kind: kind_from(&kind)?,
                reference: rows::uuid(&reference)?,
                amount,
                balance_after: rows::money(wallet.currency().as_str(), after)?,
                at: rows::instant(at),
            })
        };
        found.into_iter().map(entry).collect()
    }
}

/// The transfer of that kind with that reference, if it was made.
pub(super) async fn made(connection: &mut Connection, kind: Kind, reference: Uuid) -> Result<Option<Made>, StoreError> {
    let row: Option<(String, i64, i64)> = sqlx::query_as(
        "SELECT postings.account, postings.amount, postings.balance_after
         FROM transfers JOIN postings ON postings.transfer = transfers.seq
         WHERE transfers.kind = $1 AND transfers.reference = $2 AND postings.number IS NOT NULL",
    )
    .bind(kind_name(kind))
    .bind(reference.to_string())
    .fetch_optional(connection)
    .await?;
    row.map(|(account, amount, balance_after)| {
        let owner = account.strip_prefix("wallet:");
        Ok(Made {
            user_id: rows::uuid(owner.ok_or(StoreError::Corrupt("a numbered posting of no wallet"))?)?,
            amount,
            balance_after,
        })
    })
    .transpose()
}

/// What a wallet holds, and the number of its last posting. Under the lock of the user's row it stays so: a statement of its
/// own, since one that waited for the lock still sees what was there before it.
pub(super) async fn last(connection: &mut Connection, user_id: Uuid) -> Result<(i64, i64), StoreError> {
    let row: Option<(i64, i64)> = sqlx::query_as(
        "SELECT number, balance_after FROM postings WHERE account = $1 AND number IS NOT NULL
         ORDER BY number DESC LIMIT 1",
    )
    .bind(format!("wallet:{user_id}"))
    .fetch_optional(connection)
    .await?;
    Ok(row.unwrap_or((0, 0)))
}

/// Writes a transfer down. `number` and `after` are the wallet's next number and what it holds then.
pub(super) async fn book(write: &mut Write, transfer: &Transfer, number: i64, after: Money) -> Result<(), StoreError> {
    let [wallet, other] = transfer.postings();
    open_accounts(write, transfer, [wallet, other]).await?;
    let seq: i64 = sqlx::query_scalar("INSERT INTO transfers (kind, reference, at) VALUES ($1, $2, $3) RETURNING seq")
        .bind(kind_name(transfer.kind))
        .bind(transfer.reference.to_string())
        .bind(write.now.as_nanos())
        .fetch_one(&mut *write.tx)
        .await?;
    sqlx::query(
        "INSERT INTO postings (transfer, account, amount, number, balance_after)
         VALUES ($1, $2, $3, $4, $5), ($1, $6, $7, NULL, NULL)",
    )
    .bind(seq)
    .bind(account(wallet.account, after))
    .bind(wallet.amount)
    .bind(number)
    .bind(after.minor())
    .bind(account(other.account, after))
    .bind(other.amount)
    .execute(&mut *write.tx)
    .await?;
    Ok(())
}

/// Accounts are there from their first posting on.
async fn open_accounts(write: &mut Write, transfer: &Transfer, postings: [Posting; 2]) -> Result<(), StoreError> {
    let currency = transfer.currency();
    let [wallet, other] = postings.map(|posting| posting.account);
    let nothing = Money::zero(currency);
    sqlx::query(
        "INSERT INTO accounts (id, kind, owner, currency) VALUES ($1, $2, $3, $4), ($5, $6, $7, $4)
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(account(wallet, nothing))
    .bind(account_kind(wallet))
    .bind(owner(wallet))
    .bind(currency.as_str())
    .bind(account(other, nothing))
    .bind(account_kind(other))
    .bind(owner(other))
    .execute(&mut *write.tx)
    .await?;
    Ok(())
}

/// An account's id. A user has one wallet, in the currency of the account; the others are one for each currency.
fn account(account: Account, money: Money) -> String {
    match account {
        Account::Wallet(user) => format!("wallet:{user}"),
        Account::External => format!("external:{}", money.currency().as_str()),
        Account::Sales(event) => format!("sales:{event}:{}", money.currency().as_str()),
    }
}

fn account_kind(account: Account) -> &'static str {
    match account {
        Account::Wallet(_) => "wallet",
        Account::External => "external",
        Account::Sales(_) => "sales",
    }
}

fn owner(account: Account) -> String {
    match account {
        Account::Wallet(owner) | Account::Sales(owner) => owner.to_string(),
        Account::External => String::new(),
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::TopUp => "topup",
        Kind::Debit => "debit",
        Kind::Refund => "refund",
        Kind::Return => "return",
    }
}

fn kind_from(name: &str) -> Result<Kind, StoreError> {
    match name {
        "topup" => Ok(Kind::TopUp),
        "debit" => Ok(Kind::Debit),
        "refund" => Ok(Kind::Refund),
        "return" => Ok(Kind::Return),
        _ => Err(StoreError::Corrupt("a kind of transfer that is none")),
    }
}
