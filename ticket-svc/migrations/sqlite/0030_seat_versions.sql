-- Each change of a seat counts its version up, and what a hold was granted is a version of a seat: selling it and giving it
-- back are conditional on (seat, version). Seats of before begin at 0, and so do the holds of before.
ALTER TABLE seats ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE hold_seats ADD COLUMN version INTEGER NOT NULL DEFAULT 0;
