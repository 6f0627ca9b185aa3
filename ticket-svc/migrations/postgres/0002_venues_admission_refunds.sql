-- Venues as records, general admission, sale windows, limits for each buyer, refunds.

CREATE TABLE venues (
  seq       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  id        TEXT NOT NULL UNIQUE,
  name      TEXT NOT NULL,
  -- Empty where nothing is known: two venues are one if all four are equal, which NULL never is.
  city      TEXT NOT NULL,
  address   TEXT NOT NULL,
  time_zone TEXT NOT NULL,
  UNIQUE (name, city, address, time_zone)
);

INSERT INTO venues (id, name, city, address, time_zone)
SELECT CAST(gen_random_uuid() AS TEXT), venue, '', '', '' FROM (SELECT DISTINCT venue FROM events) AS names;

ALTER TABLE events ADD COLUMN venue_seq BIGINT REFERENCES venues (seq);
UPDATE events SET venue_seq = (SELECT seq FROM venues WHERE venues.name = events.venue);
ALTER TABLE events DROP COLUMN venue;
ALTER TABLE events ADD COLUMN organiser TEXT NOT NULL DEFAULT '';
ALTER TABLE events ADD COLUMN sale_starts_at BIGINT;
ALTER TABLE events ADD COLUMN sale_ends_at BIGINT;
-- 0: no limit.
ALTER TABLE events ADD COLUMN max_per_buyer BIGINT NOT NULL DEFAULT 0;

-- General admission: so many places, in row 0; row_count and seats_per_row are 0 then. 0: numbered seats.
ALTER TABLE sections ADD COLUMN capacity BIGINT NOT NULL DEFAULT 0;

-- How many seats it was granted.
ALTER TABLE holds ADD COLUMN seats BIGINT NOT NULL DEFAULT 0;
UPDATE holds SET seats = (SELECT count(*) FROM hold_seats WHERE hold = token);
-- Of a hold in phase 2, which is over: 0 it was released, 1 it lapsed, 2 it was sold and refunded.
ALTER TABLE holds ADD COLUMN ending BIGINT NOT NULL DEFAULT 0 CHECK (ending IN (0, 1, 2));

CREATE INDEX holds_of_buyer ON holds (event, buyer, phase, expires_at);
CREATE INDEX holds_by_end ON holds (expires_at) WHERE phase = 0;

-- A refunded ticket stays, revoked; its seat may be sold again. The unique index over those that are good is the last line:
-- whatever goes wrong above it, no seat is sold twice.
ALTER TABLE tickets ADD COLUMN revoked_at BIGINT;
ALTER TABLE tickets DROP CONSTRAINT tickets_event_section_row_no_seat_no_key;
CREATE UNIQUE INDEX tickets_one_a_seat ON tickets (event, section, row_no, seat_no) WHERE revoked_at IS NULL;
CREATE INDEX tickets_by_order ON tickets (order_id);

-- The words of each event, folded by the service (domain/search.rs): those of the title of weight A, those of the place of weight B.
ALTER TABLE events ADD COLUMN words tsvector NOT NULL DEFAULT '';
UPDATE events SET words = setweight(to_tsvector('simple', title), 'A')
  || setweight(to_tsvector('simple', (SELECT name FROM venues WHERE seq = venue_seq)), 'B');
CREATE INDEX events_words ON events USING gin (words);

-- What ticket codes are signed with: Ed25519, as PKCS#8. The newest generation signs; all of them verify.
CREATE TABLE ticket_keys (
  generation BIGINT PRIMARY KEY,
  kid        TEXT   NOT NULL UNIQUE,
  pair       BYTEA  NOT NULL,
  made_at    BIGINT NOT NULL
);
