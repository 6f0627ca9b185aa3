//! The core of the monitor: time series, how they are added to and bounded, and what can be asked of them. Pure: it awaits nothing,
//! reads no clock, touches no disk and names no status.
//!
//! Read in this order: `level` (what is kept for how long), `point` (the calls of a stretch), `report` (what comes in), `state`
//! (all series), `query` (what goes out).

mod level;
mod point;
mod query;
mod report;
mod state;

pub(crate) use self::{
    level::{LONGEST, Level},
    point::{MAX_CODE, Packed, Point},
    query::{Answer, Edge, GroupBy, Grouped, MAX_PAGE_POINTS, MAX_POINTS, MethodRow, Order, Selection, Steps, Window},
    report::{Key, Report, ReporterId, Side},
    state::{Applied, Bounds, Change, Refused, Seen, State},
};
