-- What sqlite/0001 says, in PostgreSQL's words. Ids are compared byte by byte in both (COLLATE "C").

CREATE TABLE users (
  id            TEXT   COLLATE "C" PRIMARY KEY,
  request_id    TEXT   COLLATE "C" NOT NULL UNIQUE,
  -- In lower case: addresses are compared without regard to case.
  email         TEXT   COLLATE "C" NOT NULL UNIQUE,
  display_name  TEXT   NOT NULL,
  -- Argon2id in PHC form, with its salt and parameters.
  password_hash TEXT   NOT NULL,
  currency      TEXT   NOT NULL,
  -- The sum of the user's ledger; written with each entry, in the same transaction.
  balance       BIGINT NOT NULL DEFAULT 0 CHECK (balance >= 0),
  created_at    BIGINT NOT NULL
);

CREATE TABLE sessions (
  -- SHA-256 of the token. The token itself is known to its holder only.
  token_hash BYTEA  PRIMARY KEY,
  user_id    TEXT   COLLATE "C" NOT NULL REFERENCES users (id),
  created_at BIGINT NOT NULL,
  expires_at BIGINT NOT NULL
);

CREATE INDEX sessions_by_user ON sessions (user_id, expires_at);

-- Entries are only ever added.
CREATE TABLE ledger (
  seq           BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  user_id       TEXT   COLLATE "C" NOT NULL REFERENCES users (id),
  kind          TEXT   NOT NULL CHECK (kind IN ('topup', 'debit', 'refund')),
  -- The request of a top-up, the order of a debit and its refund.
  reference     TEXT   COLLATE "C" NOT NULL,
  -- What it adds to the balance; negative for a debit.
  amount        BIGINT NOT NULL CHECK ((kind = 'debit') = (amount < 0) OR amount = 0),
  balance_after BIGINT NOT NULL CHECK (balance_after >= 0),
  at            BIGINT NOT NULL,
  -- Once each, whatever is repeated. Across users too: a request id that another user used has another body.
  UNIQUE (kind, reference)
);

CREATE INDEX ledger_by_user ON ledger (user_id, seq);

CREATE TABLE orders (
  id              TEXT   COLLATE "C" PRIMARY KEY,
  user_id         TEXT   COLLATE "C" NOT NULL REFERENCES users (id),
  event_id        TEXT   COLLATE "C" NOT NULL,
  body_hash       BYTEA  NOT NULL,
  -- Either chosen seats (joined with ','), or a quantity and perhaps a section.
  chosen_seats    TEXT,
  quantity        BIGINT,
  section         TEXT,
  -- The recorded step of the purchase; see domain/saga.rs.
  step            TEXT   NOT NULL
    CHECK (step IN ('begin', 'hold', 'debit', 'confirm', 'refund', 'release', 'succeeded', 'failed')),
  version         BIGINT NOT NULL,
  -- With refund, release and failed: why.
  failure         TEXT,
  detail          TEXT,
  -- What was granted, once it was.
  hold_token      BIGINT,
  held_seats      TEXT,
  total           BIGINT CHECK (total >= 0),
  total_currency  TEXT,
  -- With succeeded, joined with ','.
  tickets         TEXT,
  ticket_instance TEXT   NOT NULL,
  trace_id        TEXT   NOT NULL,
  trace_parent    TEXT   NOT NULL,
  created_at      BIGINT NOT NULL,
  updated_at      BIGINT NOT NULL,
  CHECK ((chosen_seats IS NULL) = (quantity IS NOT NULL))
  -- An order is written five times on its way.
) WITH (fillfactor = 60);

CREATE INDEX orders_by_user ON orders (user_id, created_at, id);

-- What a restart takes up again.
CREATE INDEX orders_unfinished ON orders (created_at, id) WHERE step NOT IN ('succeeded', 'failed');
