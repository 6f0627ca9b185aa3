-- Events, written in the transaction of what they tell (crate outbox). Instants are nanoseconds since 1970-01-01T00:00:00Z.

CREATE TABLE outbox (
  -- The order of delivery within a key: whoever writes an event holds the lock of the row that its key names.
  seq          BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id           TEXT   COLLATE "C" NOT NULL UNIQUE,
  key          TEXT   COLLATE "C" NOT NULL,
  kind         TEXT    NOT NULL,
  -- JSON with its schema's version.
  body         TEXT    NOT NULL,
  -- The span that it was written under, as a traceparent; empty without one.
  trace_parent TEXT    NOT NULL,
  created_at   BIGINT NOT NULL,
  -- 0 pending, 1 delivered, 2 dead: it holds back the later ones of its key until it is replayed.
  state        BIGINT NOT NULL DEFAULT 0 CHECK (state IN (0, 1, 2)),
  attempts     BIGINT NOT NULL DEFAULT 0,
  -- Nobody takes it before. A claim moves this to its own end, a failure to the next attempt.
  next_at      BIGINT NOT NULL,
  -- Of the batch that took it last; what becomes of it is conditional on that. Empty: never taken.
  claim        TEXT    NOT NULL DEFAULT '',
  delivered_at BIGINT,
  -- What the last attempt failed of.
  error        TEXT    NOT NULL DEFAULT '',
  CHECK ((state = 1) = (delivered_at IS NOT NULL))
);

CREATE INDEX outbox_due ON outbox (next_at) WHERE state = 0;
CREATE INDEX outbox_undelivered ON outbox (key, seq) WHERE state <> 1;
CREATE INDEX outbox_dead ON outbox (seq) WHERE state = 2;
CREATE INDEX outbox_delivered ON outbox (delivered_at) WHERE state = 1;

-- Which events a consumer has taken in, written in the transaction of their effect: a second delivery has none.
CREATE TABLE inbox (
  consumer TEXT   COLLATE "C" NOT NULL,
  event_id TEXT   COLLATE "C" NOT NULL,
  taken_at BIGINT NOT NULL,
  PRIMARY KEY (consumer, event_id)
);

CREATE INDEX inbox_by_age ON inbox (taken_at);
