-- The mails of the example: which were written to whom, and about what. No addresses: who sends them looks those up.

CREATE TABLE mails (
  event_id TEXT   COLLATE "C" PRIMARY KEY,
  kind     TEXT    NOT NULL,
  order_id TEXT   COLLATE "C" NOT NULL,
  user_id  TEXT    NOT NULL,
  sent_at  BIGINT NOT NULL
);

CREATE INDEX mails_by_order ON mails (order_id);
