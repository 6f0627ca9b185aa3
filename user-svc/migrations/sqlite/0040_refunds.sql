-- Refunds of orders that have succeeded. What the last one that was asked for came to is in the order; the ids of all of them are
-- kept, so that a request is one refund for ever.

ALTER TABLE orders ADD COLUMN refund_request TEXT;
-- 'buyer' or 'operator'.
ALTER TABLE orders ADD COLUMN refund_by TEXT;
-- When it was refused: why.
ALTER TABLE orders ADD COLUMN refund_refusal TEXT;
ALTER TABLE orders ADD COLUMN refund_detail TEXT;

CREATE TABLE refund_requests (
  id       TEXT    PRIMARY KEY,
  order_id TEXT    NOT NULL REFERENCES orders (id),
  asked_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- A transfer of its own for what comes back for tickets that were given back: 'return'. SQLite cannot change a CHECK, so the table
-- is made anew, and with it the one that refers to it.
CREATE TABLE transfers_anew (
  seq       INTEGER PRIMARY KEY AUTOINCREMENT,
  kind      TEXT    NOT NULL CHECK (kind IN ('topup', 'debit', 'refund', 'return')),
  -- The request of a top-up; the order of a debit, its refund and its return.
  reference TEXT    NOT NULL,
  at        INTEGER NOT NULL,
  -- Once each, whatever is repeated. Across users too: a request id that another user used has another body.
  UNIQUE (kind, reference)
) STRICT;
INSERT INTO transfers_anew SELECT seq, kind, reference, at FROM transfers;

CREATE TABLE postings_anew (
  transfer      INTEGER NOT NULL REFERENCES transfers_anew (seq),
  account       TEXT    NOT NULL,
  -- What it adds to the account; negative for what it takes.
  amount        INTEGER NOT NULL,
  -- For wallets: the how-manieth posting of the account this is, from 1, and what the account holds after it. Two writers who saw
  -- the same balance make the same number, and one of them fails. The other accounts have neither, so that nobody waits for them.
  number        INTEGER,
  balance_after INTEGER CHECK (balance_after >= 0),
  PRIMARY KEY (transfer, account),
  CHECK ((number IS NULL) = (balance_after IS NULL)),
  CHECK ((account LIKE 'wallet:%') = (number IS NOT NULL))
) STRICT, WITHOUT ROWID;
INSERT INTO postings_anew SELECT transfer, account, amount, number, balance_after FROM postings;

DROP TABLE postings;
DROP TABLE transfers;
-- Renames what refers to it as well.
ALTER TABLE transfers_anew RENAME TO transfers;
ALTER TABLE postings_anew RENAME TO postings;

CREATE UNIQUE INDEX postings_in_order ON postings (account, number) WHERE number IS NOT NULL;
