//! Columns back into domain values. What does not fit was not written by us and is reported as corrupt, never guessed.

use identity::Roles;
use service_store::{Currency, Money, Timestamp};
use sqlx::{Row as _, any::AnyRow};
use uuid::Uuid;

use super::StoreError;
use crate::domain::{
    order::{
        ChosenSeats, Claim, Failing, Failure, Held, Order, Quantity, Refund, RefundBy, RefundRefusal, RefundRefused,
        SeatId, Selection, Trace,
    },
    saga::Step,
};

pub(super) fn uuid(text: &str) -> Result<Uuid, StoreError> {
    Uuid::try_parse(text).map_err(|_| StoreError::Corrupt("an id that is no UUID"))
}

pub(super) fn instant(nanos: i64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

pub(super) fn money(currency: &str, minor: i64) -> Result<Money, StoreError> {
    let currency = Currency::try_new(currency).map_err(|_| StoreError::Corrupt("a currency that is none"))?;
    Money::try_new(currency, minor).map_err(|_| StoreError::Corrupt("a negative amount"))
}

pub(super) fn roles(names: &str) -> Result<Roles, StoreError> {
    Roles::all_named(split(names)).ok_or(StoreError::Corrupt("a role that is none"))
}

/// The columns of a step: its name, why it fails, its tickets.
pub(super) struct StepColumns<'a> {
    pub(super) name: &'static str,
    pub(super) failure: Option<&'static str>,
    pub(super) detail: Option<&'a str>,
    pub(super) tickets: Option<String>,
}

pub(super) fn step_columns(step: &Step) -> StepColumns<'_> {
    match step {
        Step::Begin | Step::Hold | Step::Debit | Step::Confirm => plain(step.name()),
        Step::Refund(why) | Step::Release(why) | Step::Failed(why) => StepColumns {
            failure: Some(why.failure.name()),
            detail: Some(&why.detail),
            ..plain(step.name())
        },
        Step::Succeeded(tickets) | Step::Revoke(tickets) | Step::Repay(tickets) | Step::Refunded(tickets) => {
            StepColumns {
                tickets: Some(joined(tickets)),
                ..plain(step.name())
            }
        }
    }
}

fn plain(name: &'static str) -> StepColumns<'static> {
    StepColumns {
        name,
        failure: None,
        detail: None,
        tickets: None,
    }
}

pub(super) fn order(row: &AnyRow) -> Result<Order, StoreError> {
    Ok(Order {
        id: uuid(row.try_get("id")?)?,
        user_id: uuid(row.try_get("user_id")?)?,
        event_id: uuid(row.try_get("event_id")?)?,
        selection: selection(row)?,
        step: step(row)?,
        version: row.try_get("version")?,
        claim: Claim {
            number: row.try_get("claim")?,
            until: instant(row.try_get("claim_until")?),
        },
        held: held(row)?,
        created_at: instant(row.try_get("created_at")?),
        updated_at: instant(row.try_get("updated_at")?),
        ticket_instance: row.try_get("ticket_instance")?,
        trace: Trace {
            id: row.try_get("trace_id")?,
            parent: row.try_get("trace_parent")?,
        },
        refund: refund(row)?,
    })
}

fn step(row: &AnyRow) -> Result<Step, StoreError> {
    Ok(match row.try_get("step")? {
        "begin" => Step::Begin,
        "hold" => Step::Hold,
        "debit" => Step::Debit,
        "confirm" => Step::Confirm,
        "refund" => Step::Refund(failing(row)?),
        "release" => Step::Release(failing(row)?),
        "succeeded" => Step::Succeeded(tickets(row)?),
        "revoke" => Step::Revoke(tickets(row)?),
        "repay" => Step::Repay(tickets(row)?),
        "refunded" => Step::Refunded(tickets(row)?),
        "failed" => Step::Failed(failing(row)?),
        _ => return Err(StoreError::Corrupt("a step that is none")),
    })
}

fn tickets(row: &AnyRow) -> Result<Vec<Uuid>, StoreError> {
    split(row.try_get("tickets")?).map(uuid).collect()
}

fn refund(row: &AnyRow) -> Result<Option<Refund>, StoreError> {
    let Some(id) = row.try_get::<Option<&str>, _>("refund_request")? else {
        return Ok(None);
    };
    let by = match row.try_get("refund_by")? {
        "buyer" => RefundBy::Buyer,
        "operator" => RefundBy::Operator,
        _ => return Err(StoreError::Corrupt("a refund asked for by nobody")),
    };
    let refused = match row.try_get::<Option<&str>, _>("refund_refusal")? {
        None => None,
        Some(why) => Some(RefundRefused {
            why: match why {
                "closed" => RefundRefusal::Closed,
                "no_tickets" => RefundRefusal::NoTickets,
                _ => return Err(StoreError::Corrupt("a refusal of a refund that is none")),
            },
            detail: row.try_get("refund_detail")?,
        }),
    };
    Ok(Some(Refund {
        id: uuid(id)?,
        by,
        refused,
    }))
}

fn failing(row: &AnyRow) -> Result<Failing, StoreError> {
    let failure = failure_from(row.try_get("failure")?)?;
    Ok(Failing::new(failure, row.try_get::<String, _>("detail")?))
}

fn selection(row: &AnyRow) -> Result<Selection, StoreError> {
    const CORRUPT: StoreError = StoreError::Corrupt("a selection outside its limits");
    match row.try_get::<Option<&str>, _>("chosen_seats")? {
        Some(seats) => ChosenSeats::try_new(seat_ids(seats)?)
            .map(Selection::Seats)
            .map_err(|_| CORRUPT),
        None => Ok(Selection::BestAvailable {
            quantity: u32::try_from(row.try_get::<i64, _>("quantity")?)
                .ok()
                .and_then(|quantity| Quantity::try_new(quantity).ok())
                .ok_or(CORRUPT)?,
            section: row.try_get("section")?,
        }),
    }
}

fn held(row: &AnyRow) -> Result<Option<Held>, StoreError> {
    let Some(token) = row.try_get::<Option<i64>, _>("hold_token")? else {
        return Ok(None);
    };
    let total = money(row.try_get("total_currency")?, row.try_get("total")?)?;
    Ok(Some(Held {
        token,
        seats: seat_ids(row.try_get("held_seats")?)?,
        total,
    }))
}

/// Neither seat names nor UUIDs contain a comma.
pub(super) fn joined<T: ToString>(parts: &[T]) -> String {
    parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

pub(super) fn seats_joined(seats: &[SeatId]) -> String {
    joined(&seats.iter().map(SeatId::as_str).collect::<Vec<_>>())
}

fn seat_ids(joined: &str) -> Result<Vec<SeatId>, StoreError> {
    let corrupt = |_| StoreError::Corrupt("a seat name outside its limits");
    split(joined)
        .map(|seat| SeatId::try_new(seat).map_err(corrupt))
        .collect()
}

fn split(joined: &str) -> impl Iterator<Item = &str> {
    joined.split(',').filter(|part| !part.is_empty())
}

fn failure_from(name: &str) -> Result<Failure, StoreError> {
    Ok(match name {
        "sold_out" => Failure::SoldOut,
        "seat_taken" => Failure::SeatTaken,
        "insufficient_funds" => Failure::InsufficientFunds,
        "hold_expired" => Failure::HoldExpired,
        "not_found" => Failure::NotFound,
        "not_for_sale" => Failure::NotForSale,
        "unavailable" => Failure::Unavailable,
        _ => return Err(StoreError::Corrupt("a failure that is none")),
    })
}
