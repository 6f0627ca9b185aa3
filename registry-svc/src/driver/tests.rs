//! The driver's promises, one file for each: group commit over a real thread, and its rules over a store that the test plays.

mod away;
mod convergence;
mod governance;
mod group_commit;
mod no_room;
mod overtaken;
mod renewals;
mod stage;
