-- Venues as records, general admission, sale windows, limits for each buyer, refunds.

CREATE TABLE venues (
  seq       INTEGER PRIMARY KEY,
  id        TEXT NOT NULL UNIQUE,
  name      TEXT NOT NULL,
  -- Empty where nothing is known: two venues are one if all four are equal, which NULL never is.
  city      TEXT NOT NULL,
  address   TEXT NOT NULL,
  time_zone TEXT NOT NULL,
  UNIQUE (name, city, address, time_zone)
) STRICT;

INSERT INTO venues (id, name, city, address, time_zone)
SELECT lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-8'
         || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6))), venue, '', '', ''
  FROM (SELECT DISTINCT venue FROM events);

ALTER TABLE events ADD COLUMN venue_seq INTEGER REFERENCES venues (seq);
UPDATE events SET venue_seq = (SELECT seq FROM venues WHERE venues.name = events.venue);
ALTER TABLE events DROP COLUMN venue;
ALTER TABLE events ADD COLUMN organiser TEXT NOT NULL DEFAULT '';
ALTER TABLE events ADD COLUMN sale_starts_at INTEGER;
ALTER TABLE events ADD COLUMN sale_ends_at INTEGER;
-- 0: no limit.
ALTER TABLE events ADD COLUMN max_per_buyer INTEGER NOT NULL DEFAULT 0;

-- General admission: so many places, in row 0; row_count and seats_per_row are 0 then. 0: numbered seats.
ALTER TABLE sections ADD COLUMN capacity INTEGER NOT NULL DEFAULT 0;

-- How many seats it was granted.
ALTER TABLE holds ADD COLUMN seats INTEGER NOT NULL DEFAULT 0;
UPDATE holds SET seats = (SELECT count(*) FROM hold_seats WHERE hold = token);
-- Of a hold in phase 2, which is over: 0 it was released, 1 it lapsed, 2 it was sold and refunded.
ALTER TABLE holds ADD COLUMN ending INTEGER NOT NULL DEFAULT 0 CHECK (ending IN (0, 1, 2));

CREATE INDEX holds_of_buyer ON holds (event, buyer, phase, expires_at);
CREATE INDEX holds_by_end ON holds (expires_at) WHERE phase = 0;

-- A refunded ticket stays, revoked; its seat may be sold again. The unique index over those that are good is the last line:
-- whatever goes wrong above it, no seat is sold twice.
CREATE TABLE tickets_with_refunds (
  id         TEXT    PRIMARY KEY,
  event      INTEGER NOT NULL,
  section    INTEGER NOT NULL,
  row_no     INTEGER NOT NULL,
  seat_no    INTEGER NOT NULL,
  hold       INTEGER NOT NULL REFERENCES holds (token),
  order_id   TEXT    NOT NULL,
  sold_at    INTEGER NOT NULL,
  revoked_at INTEGER,
  FOREIGN KEY (event, section, row_no, seat_no) REFERENCES seats (event, section, row_no, seat_no)
) STRICT;
INSERT INTO tickets_with_refunds SELECT id, event, section, row_no, seat_no, hold, order_id, sold_at, NULL FROM tickets;
DROP TABLE tickets;
ALTER TABLE tickets_with_refunds RENAME TO tickets;
CREATE UNIQUE INDEX tickets_one_a_seat ON tickets (event, section, row_no, seat_no) WHERE revoked_at IS NULL;
CREATE INDEX tickets_by_hold ON tickets (hold);
CREATE INDEX tickets_by_order ON tickets (order_id);

-- The words of each event, folded by the service (domain/search.rs); rowid is the event's seq.
CREATE VIRTUAL TABLE events_words USING fts5 (title, place, tokenize = 'unicode61 remove_diacritics 2');
INSERT INTO events_words (rowid, title, place)
SELECT events.seq, title, name FROM events JOIN venues ON venues.seq = venue_seq;

-- What ticket codes are signed with: Ed25519, as PKCS#8. The newest generation signs; all of them verify.
CREATE TABLE ticket_keys (
  generation INTEGER PRIMARY KEY,
  kid        TEXT    NOT NULL UNIQUE,
  pair       BLOB    NOT NULL,
  made_at    INTEGER NOT NULL
) STRICT;
