-- Which process drives an order, and the refund of a purchase as a saga. SQLite cannot change a CHECK: the table is made anew.
-- What a step is called is in the code alone from now on (domain/saga.rs), which reads it strictly.

CREATE TABLE orders_anew (
  id              TEXT    PRIMARY KEY,
  user_id         TEXT    NOT NULL REFERENCES users (id),
  event_id        TEXT    NOT NULL,
  body_hash       BLOB    NOT NULL,
  -- Either chosen seats (joined with ','), or a quantity and perhaps a section.
  chosen_seats    TEXT,
  quantity        INTEGER,
  section         TEXT,
  -- The recorded step of the purchase; see domain/saga.rs.
  step            TEXT    NOT NULL,
  version         INTEGER NOT NULL,
  -- With refund, release and failed: why.
  failure         TEXT,
  detail          TEXT,
  -- What was granted, once it was.
  hold_token      INTEGER,
  held_seats      TEXT,
  total           INTEGER CHECK (total >= 0),
  total_currency  TEXT,
  -- With succeeded and what follows it, joined with ','.
  tickets         TEXT,
  ticket_instance TEXT    NOT NULL,
  trace_id        TEXT    NOT NULL,
  trace_parent    TEXT    NOT NULL,
  created_at      INTEGER NOT NULL,
  updated_at      INTEGER NOT NULL,
  -- Grows with each claim; writes are conditional on it. The owner is a process in one of its lives; empty: nobody.
  claim           INTEGER NOT NULL DEFAULT 0,
  claim_owner     TEXT    NOT NULL DEFAULT '',
  claim_until     INTEGER NOT NULL DEFAULT 0,
  CHECK ((chosen_seats IS NULL) = (quantity IS NOT NULL))
) STRICT;

INSERT INTO orders_anew
SELECT id, user_id, event_id, body_hash, chosen_seats, quantity, section, step, version, failure, detail, hold_token, held_seats,
       total, total_currency, tickets, ticket_instance, trace_id, trace_parent, created_at, updated_at, 0, '', 0
  FROM orders;

DROP TABLE orders;
ALTER TABLE orders_anew RENAME TO orders;

CREATE INDEX orders_by_user ON orders (user_id, created_at, id);

-- What nobody drives, the longest left alone first.
CREATE INDEX orders_unfinished ON orders (claim_until, id) WHERE step NOT IN ('succeeded', 'failed', 'refunded');
