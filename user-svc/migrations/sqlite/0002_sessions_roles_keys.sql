-- Sessions are refreshed from now on: those of before could not be, and end. Their owners sign in again.
DROP TABLE sessions;

CREATE TABLE sessions (
  id           TEXT    PRIMARY KEY,
  user_id      TEXT    NOT NULL REFERENCES users (id),
  -- SHA-256 of what all refresh tokens of the session have in common, and of what only the present one has.
  family_hash  BLOB    NOT NULL,
  secret_hash  BLOB    NOT NULL,
  user_agent   TEXT    NOT NULL,
  created_at   INTEGER NOT NULL,
  refreshed_at INTEGER NOT NULL,
  expires_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_by_user ON sessions (user_id, created_at, id);

-- What an account is: names joined with ','.
ALTER TABLE users ADD COLUMN roles TEXT NOT NULL DEFAULT 'buyer';

-- An account that was deleted: its address is then 'deleted:' and its id, which nobody can sign in with.
ALTER TABLE users ADD COLUMN deleted_at INTEGER;

-- The key pairs that access tokens are signed with, shared by all processes of this store.
CREATE TABLE signing_keys (
  -- Each one's place in their order. Two processes that make the next key at once find that one of them has.
  generation INTEGER PRIMARY KEY,
  -- PKCS#8. Whoever can read this can sign; whoever can read this could also write balances.
  document   BLOB    NOT NULL,
  signs_from INTEGER NOT NULL
) STRICT;
