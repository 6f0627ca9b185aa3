-- What sqlite/0001 says, in PostgreSQL's words. Ids are compared byte by byte in both (COLLATE "C").
--
-- There are no foreign keys to events and sections here. Each new row under one would lock the event's row, if only shared,
-- and write to it: with 2,000 buyers for one event that row would be written by all of them. Events and sections are never
-- deleted, and their keys are read in the transaction that writes them.

CREATE TABLE events (
  seq        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id         TEXT   COLLATE "C" NOT NULL UNIQUE,
  request_id TEXT   COLLATE "C" NOT NULL UNIQUE,
  body_hash  BYTEA  NOT NULL,
  title      TEXT   NOT NULL,
  venue      TEXT   NOT NULL,
  starts_at  BIGINT NOT NULL,
  currency   TEXT   NOT NULL,
  created_at BIGINT NOT NULL
);

CREATE INDEX events_by_start ON events (starts_at, id);

CREATE TABLE sections (
  event         BIGINT NOT NULL,
  position      BIGINT NOT NULL,
  name          TEXT   NOT NULL,
  row_count     BIGINT NOT NULL,
  seats_per_row BIGINT NOT NULL,
  price         BIGINT NOT NULL CHECK (price >= 0),
  PRIMARY KEY (event, position),
  UNIQUE (event, name)
);

-- A sequence never gives a token twice, not even after a rollback or when the newest row is gone.
CREATE TABLE holds (
  token      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id         TEXT   COLLATE "C" NOT NULL UNIQUE,
  event      BIGINT NOT NULL,
  buyer      TEXT   NOT NULL,
  body_hash  BYTEA  NOT NULL,
  -- 0 held, 1 confirmed, 2 released. A hold expires by the clock, not by a write; a confirmation that comes too late makes it 2.
  phase      BIGINT NOT NULL DEFAULT 0 CHECK (phase IN (0, 1, 2)),
  expires_at BIGINT NOT NULL,
  order_id   TEXT,
  created_at BIGINT NOT NULL,
  CHECK ((phase = 1) = (order_id IS NOT NULL))
);

-- The present state of each seat.
CREATE TABLE seats (
  event      BIGINT NOT NULL,
  section    BIGINT NOT NULL,
  row_no     BIGINT NOT NULL,
  seat_no    BIGINT NOT NULL,
  -- 0 free, 1 held (until held_until; free after it), 2 sold.
  state      BIGINT NOT NULL DEFAULT 0 CHECK (state IN (0, 1, 2)),
  hold       BIGINT REFERENCES holds (token),
  held_until BIGINT,
  PRIMARY KEY (event, section, row_no, seat_no),
  CHECK ((state = 0) = (hold IS NULL)),
  CHECK ((state = 1) = (held_until IS NOT NULL))
  -- Seats change two or three times each; there is room for that beside them.
) WITH (fillfactor = 70);

-- Counting reads the taken seats only.
CREATE INDEX seats_taken ON seats (event, state, held_until) WHERE state <> 0;

-- What each hold was granted, kept after its seats have moved on: a repeated request gets the same answer.
CREATE TABLE hold_seats (
  hold    BIGINT NOT NULL REFERENCES holds (token),
  section BIGINT NOT NULL,
  row_no  BIGINT NOT NULL,
  seat_no BIGINT NOT NULL,
  PRIMARY KEY (hold, section, row_no, seat_no)
);

-- UNIQUE (event, seat) is the last line: whatever goes wrong above it, no seat is sold twice.
CREATE TABLE tickets (
  id       TEXT   COLLATE "C" PRIMARY KEY,
  event    BIGINT NOT NULL,
  section  BIGINT NOT NULL,
  row_no   BIGINT NOT NULL,
  seat_no  BIGINT NOT NULL,
  hold     BIGINT NOT NULL REFERENCES holds (token),
  order_id TEXT   NOT NULL,
  sold_at  BIGINT NOT NULL,
  UNIQUE (event, section, row_no, seat_no),
  FOREIGN KEY (event, section, row_no, seat_no) REFERENCES seats (event, section, row_no, seat_no)
);

CREATE INDEX tickets_by_hold ON tickets (hold);

-- Holds that were released before they were made; their late HoldSeats is refused.
CREATE TABLE empty_releases (
  hold_id     TEXT   COLLATE "C" PRIMARY KEY,
  released_at BIGINT NOT NULL
);
