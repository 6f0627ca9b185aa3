-- What sqlite/0020 says, in PostgreSQL's words.

CREATE TABLE accounts (
  -- 'wallet:USER', 'external:CURRENCY' (where top-ups come from), 'sales:EVENT:CURRENCY' (what an event has taken).
  id       TEXT COLLATE "C" PRIMARY KEY,
  kind     TEXT NOT NULL CHECK (kind IN ('wallet', 'external', 'sales')),
  -- The user or the event; empty for what is external.
  owner    TEXT COLLATE "C" NOT NULL,
  currency TEXT NOT NULL
);

CREATE TABLE transfers (
  seq       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind      TEXT    NOT NULL CHECK (kind IN ('topup', 'debit', 'refund')),
  -- The request of a top-up, the order of a debit and its refund.
  reference TEXT COLLATE "C" NOT NULL,
  at        BIGINT NOT NULL,
  -- Once each, whatever is repeated. Across users too: a request id that another user used has another body.
  UNIQUE (kind, reference)
);

CREATE TABLE postings (
  transfer      BIGINT NOT NULL REFERENCES transfers (seq),
  -- No foreign key: each posting under one would lock the account's row, which all buyers of an event share.
  account       TEXT COLLATE "C" NOT NULL,
  -- What it adds to the account; negative for what it takes.
  amount        BIGINT NOT NULL,
  -- For wallets: the how-manieth posting of the account this is, from 1, and what the account holds after it. Two writers who saw
  -- the same balance make the same number, and one of them fails. The other accounts have neither, so that nobody waits for them.
  number        BIGINT,
  balance_after BIGINT CHECK (balance_after >= 0),
  PRIMARY KEY (transfer, account),
  CHECK ((number IS NULL) = (balance_after IS NULL)),
  CHECK ((account LIKE 'wallet:%') = (number IS NOT NULL))
);

CREATE UNIQUE INDEX postings_in_order ON postings (account, number) WHERE number IS NOT NULL;

-- The ledger of before, entry by entry: a top-up came from outside, a debit went to the sales of its order's event.
INSERT INTO transfers (kind, reference, at) SELECT kind, reference, at FROM ledger ORDER BY seq;

INSERT INTO postings (transfer, account, amount, number, balance_after)
SELECT transfers.seq, 'wallet:' || ledger.user_id, ledger.amount,
       row_number() OVER (PARTITION BY ledger.user_id ORDER BY ledger.seq), ledger.balance_after
  FROM ledger JOIN transfers ON transfers.kind = ledger.kind AND transfers.reference = ledger.reference;

INSERT INTO postings (transfer, account, amount)
SELECT transfers.seq,
       CASE ledger.kind WHEN 'topup' THEN 'external:' || users.currency COLLATE "C"
                        ELSE 'sales:' || orders.event_id || ':' || users.currency COLLATE "C" END,
       -ledger.amount
  FROM ledger JOIN transfers ON transfers.kind = ledger.kind AND transfers.reference = ledger.reference
              JOIN users ON users.id = ledger.user_id
              LEFT JOIN orders ON orders.id = ledger.reference;

INSERT INTO accounts (id, kind, owner, currency)
SELECT 'wallet:' || id, 'wallet', id, currency FROM users;
INSERT INTO accounts (id, kind, owner, currency)
SELECT DISTINCT 'external:' || users.currency COLLATE "C", 'external', '', users.currency
  FROM ledger JOIN users ON users.id = ledger.user_id WHERE ledger.kind = 'topup';
INSERT INTO accounts (id, kind, owner, currency)
SELECT DISTINCT 'sales:' || orders.event_id || ':' || users.currency COLLATE "C", 'sales', orders.event_id, users.currency
  FROM ledger JOIN users ON users.id = ledger.user_id JOIN orders ON orders.id = ledger.reference
 WHERE ledger.kind <> 'topup';

DROP TABLE ledger;
ALTER TABLE users DROP COLUMN balance;
