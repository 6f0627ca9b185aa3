-- Events, written in the transaction of what they tell (crate outbox). Instants are nanoseconds since 1970-01-01T00:00:00Z.

CREATE TABLE outbox (
  -- The order of delivery within a key: whoever writes an event holds the lock of the row that its key names.
  seq          INTEGER PRIMARY KEY AUTOINCREMENT,
  id           TEXT    NOT NULL UNIQUE,
  key          TEXT    NOT NULL,
  kind         TEXT    NOT NULL,
  -- JSON with its schema's version.
  body         TEXT    NOT NULL,
  -- The span that it was written under, as a traceparent; empty without one.
  trace_parent TEXT    NOT NULL,
  created_at   INTEGER NOT NULL,
  -- 0 pending, 1 delivered, 2 dead: it holds back the later ones of its key until it is replayed.
  state        INTEGER NOT NULL DEFAULT 0 CHECK (state IN (0, 1, 2)),
  attempts     INTEGER NOT NULL DEFAULT 0,
  -- Nobody takes it before. A claim moves this to its own end, a failure to the next attempt.
  next_at      INTEGER NOT NULL,
  -- Of the batch that took it last; what becomes of it is conditional on that. Empty: never taken.
  claim        TEXT    NOT NULL DEFAULT '',
  delivered_at INTEGER,
  -- What the last attempt failed of.
  error        TEXT    NOT NULL DEFAULT '',
  CHECK ((state = 1) = (delivered_at IS NOT NULL))
) STRICT;

CREATE INDEX outbox_due ON outbox (next_at) WHERE state = 0;
CREATE INDEX outbox_undelivered ON outbox (key, seq) WHERE state <> 1;
CREATE INDEX outbox_dead ON outbox (seq) WHERE state = 2;
CREATE INDEX outbox_delivered ON outbox (delivered_at) WHERE state = 1;

-- Which events a consumer has taken in, written in the transaction of their effect: a second delivery has none.
CREATE TABLE inbox (
  consumer TEXT    NOT NULL,
  event_id TEXT    NOT NULL,
  taken_at INTEGER NOT NULL,
  PRIMARY KEY (consumer, event_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX inbox_by_age ON inbox (taken_at);
