-- What sqlite/0040 says, in PostgreSQL's words.

ALTER TABLE orders ADD COLUMN refund_request TEXT COLLATE "C";
-- 'buyer' or 'operator'.
ALTER TABLE orders ADD COLUMN refund_by TEXT;
-- When it was refused: why.
ALTER TABLE orders ADD COLUMN refund_refusal TEXT;
ALTER TABLE orders ADD COLUMN refund_detail TEXT;

CREATE TABLE refund_requests (
  id       TEXT COLLATE "C" PRIMARY KEY,
  order_id TEXT COLLATE "C" NOT NULL REFERENCES orders (id),
  asked_at BIGINT NOT NULL
);

ALTER TABLE transfers DROP CONSTRAINT transfers_kind_check;
ALTER TABLE transfers ADD CONSTRAINT transfers_kind_check CHECK (kind IN ('topup', 'debit', 'refund', 'return'));
