-- Instants are nanoseconds since 1970-01-01T00:00:00Z, prices are minor units of the event's currency, ids are UUIDs in
-- their hyphenated form. `section` is the section's position in its event, from 0.

CREATE TABLE events (
  seq        INTEGER PRIMARY KEY,
  id         TEXT    NOT NULL UNIQUE,
  request_id TEXT    NOT NULL UNIQUE,
  body_hash  BLOB    NOT NULL,
  title      TEXT    NOT NULL,
  venue      TEXT    NOT NULL,
  starts_at  INTEGER NOT NULL,
  currency   TEXT    NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;

CREATE INDEX events_by_start ON events (starts_at, id);

CREATE TABLE sections (
  event         INTEGER NOT NULL REFERENCES events (seq),
  position      INTEGER NOT NULL,
  name          TEXT    NOT NULL,
  row_count     INTEGER NOT NULL,
  seats_per_row INTEGER NOT NULL,
  price         INTEGER NOT NULL CHECK (price >= 0),
  PRIMARY KEY (event, position),
  UNIQUE (event, name)
) STRICT, WITHOUT ROWID;

-- AUTOINCREMENT, not a plain rowid: a fencing token is never given twice, not even after the newest row is gone.
CREATE TABLE holds (
  token      INTEGER PRIMARY KEY AUTOINCREMENT,
  id         TEXT    NOT NULL UNIQUE,
  event      INTEGER NOT NULL REFERENCES events (seq),
  buyer      TEXT    NOT NULL,
  body_hash  BLOB    NOT NULL,
  -- 0 held, 1 confirmed, 2 released. A hold expires by the clock, not by a write; a confirmation that comes too late makes it 2.
  phase      INTEGER NOT NULL DEFAULT 0 CHECK (phase IN (0, 1, 2)),
  expires_at INTEGER NOT NULL,
  order_id   TEXT,
  created_at INTEGER NOT NULL,
  CHECK ((phase = 1) = (order_id IS NOT NULL))
) STRICT;

-- The present state of each seat.
CREATE TABLE seats (
  event      INTEGER NOT NULL,
  section    INTEGER NOT NULL,
  row_no     INTEGER NOT NULL,
  seat_no    INTEGER NOT NULL,
  -- 0 free, 1 held (until held_until; free after it), 2 sold.
  state      INTEGER NOT NULL DEFAULT 0 CHECK (state IN (0, 1, 2)),
  hold       INTEGER REFERENCES holds (token),
  held_until INTEGER,
  PRIMARY KEY (event, section, row_no, seat_no),
  FOREIGN KEY (event, section) REFERENCES sections (event, position),
  CHECK ((state = 0) = (hold IS NULL)),
  CHECK ((state = 1) = (held_until IS NOT NULL))
) STRICT, WITHOUT ROWID;

-- Counting reads the taken seats only.
CREATE INDEX seats_taken ON seats (event, state, held_until) WHERE state <> 0;

-- What each hold was granted, kept after its seats have moved on: a repeated request gets the same answer.
CREATE TABLE hold_seats (
  hold    INTEGER NOT NULL REFERENCES holds (token),
  section INTEGER NOT NULL,
  row_no  INTEGER NOT NULL,
  seat_no INTEGER NOT NULL,
  PRIMARY KEY (hold, section, row_no, seat_no)
) STRICT, WITHOUT ROWID;

-- UNIQUE (event, seat) is the last line: whatever goes wrong above it, no seat is sold twice.
CREATE TABLE tickets (
  id       TEXT    PRIMARY KEY,
  event    INTEGER NOT NULL,
  section  INTEGER NOT NULL,
  row_no   INTEGER NOT NULL,
  seat_no  INTEGER NOT NULL,
  hold     INTEGER NOT NULL REFERENCES holds (token),
  order_id TEXT    NOT NULL,
  sold_at  INTEGER NOT NULL,
  UNIQUE (event, section, row_no, seat_no),
  FOREIGN KEY (event, section, row_no, seat_no) REFERENCES seats (event, section, row_no, seat_no)
) STRICT;

CREATE INDEX tickets_by_hold ON tickets (hold);

-- Holds that were released before they were made; their late HoldSeats is refused.
CREATE TABLE empty_releases (
  hold_id     TEXT    PRIMARY KEY,
  released_at INTEGER NOT NULL
) STRICT;
