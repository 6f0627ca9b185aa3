-- Which process drives an order, and the refund of a purchase as a saga. What a step is called is in the code alone from now
-- on (domain/saga.rs), which reads it strictly.

ALTER TABLE orders DROP CONSTRAINT orders_step_check;
-- Grows with each claim; writes are conditional on it. The owner is a process in one of its lives; empty: nobody.
ALTER TABLE orders ADD COLUMN claim BIGINT NOT NULL DEFAULT 0;
ALTER TABLE orders ADD COLUMN claim_owner TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE orders ADD COLUMN claim_until BIGINT NOT NULL DEFAULT 0;

DROP INDEX orders_unfinished;

-- What nobody drives, the longest left alone first.
CREATE INDEX orders_unfinished ON orders (claim_until, id) WHERE step NOT IN ('succeeded', 'failed', 'refunded');
