-- Refunds that a buyer asked for and was refused, by their request: a request that comes late, after the terms have changed, is
-- refused as it was when its maker heard so.
CREATE TABLE refused_refunds (
  request_id TEXT    PRIMARY KEY,
  -- Until when it could have been had.
  until      INTEGER NOT NULL,
  refused_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
