//! Domain values as messages of the wire.

use identity::{ISSUER, PublicKey};
use proto::{common, user::v1};
use service_store::{Money, Timestamp};
use uuid::Uuid;

use crate::{
    domain::{
        account::User,
        ledger::{Entry, Kind},
        order::{Failing, Failure, Order, OrderState, Refund, RefundRefusal},
        saga::Step,
        session::Session,
    },
    sessions::Granted,
};

pub(super) fn user(user: User) -> v1::User {
    v1::User {
        id: user.id.to_string(),
        email: user.email,
        display_name: user.display_name,
        balance: Some(money(user.balance)),
        created_at: Some(timestamp(user.created_at)),
        roles: user.roles.names().map(|name| role(name).into()).collect(),
    }
}

fn role(name: &str) -> v1::Role {
    match name {
        "buyer" => v1::Role::Buyer,
        "organiser" => v1::Role::Organiser,
        "operator" => v1::Role::Operator,
        _ => v1::Role::Unspecified,
    }
}

pub(super) fn signed_in(granted: Granted) -> v1::SignInResponse {
    v1::SignInResponse {
        user: Some(user(granted.user)),
        session_token: granted.access.expose().to_owned(),
        expires_at: Some(timestamp(granted.expires_at)),
        refresh_token: granted.refresh.expose(),
        refresh_expires_at: Some(timestamp(granted.refresh_expires_at)),
        session_id: granted.refresh.session.to_string(),
    }
}

pub(super) fn refreshed(granted: Granted) -> v1::RefreshSessionResponse {
    v1::RefreshSessionResponse {
        session_token: granted.access.expose().to_owned(),
        expires_at: Some(timestamp(granted.expires_at)),
        refresh_token: granted.refresh.expose(),
        refresh_expires_at: Some(timestamp(granted.refresh_expires_at)),
        user: Some(user(granted.user)),
    }
}

pub(super) fn session(session: Session, current: Option<Uuid>) -> v1::Session {
    v1::Session {
        id: session.id.to_string(),
        created_at: Some(timestamp(session.created_at)),
        refreshed_at: Some(timestamp(session.refreshed_at)),
        expires_at: Some(timestamp(session.expires_at)),
        user_agent: session.user_agent,
        current: current == Some(session.id),
    }
}

pub(super) fn signing_keys(keys: Vec<(PublicKey, Timestamp)>) -> v1::GetSigningKeysResponse {
    let keys = keys.into_iter().map(|(key, signs_from)| v1::SigningKey {
        key_id: key.kid().to_string(),
        public_key: key.as_bytes().to_vec().into(),
        signs_from: Some(timestamp(signs_from)),
    });
    v1::GetSigningKeysResponse {
        keys: keys.collect(),
        issuer: ISSUER.to_owned(),
    }
}

pub(super) fn order(order: Order) -> v1::Order {
    let state = match order.state() {
        OrderState::Pending => v1::OrderState::Pending,
        OrderState::Processing => v1::OrderState::Processing,
        OrderState::Succeeded => v1::OrderState::Succeeded,
        OrderState::Failed => v1::OrderState::Failed,
        OrderState::Refunding => v1::OrderState::Refunding,
        OrderState::Refunded => v1::OrderState::Refunded,
    };
    let (failure, detail, tickets) = match order.step {
        Step::Failed(why) => (failure(why.failure), why.detail, Vec::new()),
        step => {
            let detail = progress(&step);
            let tickets = match step {
                Step::Succeeded(tickets) | Step::Revoke(tickets) | Step::Repay(tickets) | Step::Refunded(tickets) => {
                    tickets
                }
                _ => Vec::new(),
            };
            (v1::OrderFailure::Unspecified, detail, tickets)
        }
    };
    let (seats, total) = order.held.map(|held| (held.seats, held.total)).unzip();
    v1::Order {
        id: order.id.to_string(),
        user_id: order.user_id.to_string(),
        event_id: order.event_id.to_string(),
        state: state.into(),
        failure: failure.into(),
        detail,
        seat_ids: seats
            .unwrap_or_default()
            .iter()
            .map(|seat| seat.as_str().to_owned())
            .collect(),
        ticket_ids: tickets.iter().map(ToString::to_string).collect(),
        total: total.map(money),
        created_at: Some(timestamp(order.created_at)),
        updated_at: Some(timestamp(order.updated_at)),
        ticket_instance_id: order.ticket_instance,
        trace_id: order.trace.id,
        refund: order.refund.map(refund),
    }
}

fn refund(refund: Refund) -> v1::Refund {
    let (refusal, detail) = match refund.refused {
        None => (v1::RefundRefusal::Unspecified, String::new()),
        Some(refused) => {
            let refusal = match refused.why {
                RefundRefusal::Closed => v1::RefundRefusal::Closed,
                RefundRefusal::NoTickets => v1::RefundRefusal::NoTickets,
            };
            (refusal, refused.detail)
        }
    };
    v1::Refund {
        request_id: refund.id.to_string(),
        refusal: refusal.into(),
        detail,
    }
}

pub(super) fn entry(entry: Entry) -> v1::StatementEntry {
    let kind = match entry.kind {
        Kind::TopUp => v1::StatementKind::TopUp,
        Kind::Debit => v1::StatementKind::Debit,
        Kind::Refund => v1::StatementKind::Refund,
        Kind::Return => v1::StatementKind::Return,
    };
    v1::StatementEntry {
        number: entry.number,
        kind: kind.into(),
        amount_minor_units: entry.amount,
        balance_after: Some(money(entry.balance_after)),
        reference: entry.reference.to_string(),
        at: Some(timestamp(entry.at)),
    }
}

/// For people, while it is under way.
fn progress(step: &Step) -> String {
    match step {
        Step::Begin => "recorded".to_owned(),
        Step::Hold => "asking for seats".to_owned(),
        Step::Debit => "seats are held; taking the money".to_owned(),
        Step::Confirm => "paid; waiting for the tickets".to_owned(),
        Step::Refund(Failing { detail, .. }) => format!("giving the money back: {detail}"),
        Step::Release(Failing { detail, .. }) => format!("giving the seats back: {detail}"),
        Step::Revoke(_) => "taking the tickets back".to_owned(),
        Step::Repay(_) => "the tickets are void; giving the money back".to_owned(),
        Step::Succeeded(_) | Step::Refunded(_) | Step::Failed(_) => String::new(),
    }
}

fn failure(failure: Failure) -> v1::OrderFailure {
    match failure {
        Failure::SoldOut => v1::OrderFailure::SoldOut,
        Failure::SeatTaken => v1::OrderFailure::SeatTaken,
        Failure::InsufficientFunds => v1::OrderFailure::InsufficientFunds,
        Failure::HoldExpired => v1::OrderFailure::HoldExpired,
        Failure::NotFound => v1::OrderFailure::NotFound,
        Failure::NotForSale => v1::OrderFailure::NotForSale,
        Failure::Unavailable => v1::OrderFailure::Unavailable,
    }
}

pub(super) fn money(money: Money) -> common::v1::Money {
    common::v1::Money {
        currency_code: money.currency().as_str().to_owned(),
        minor_units: money.minor(),
    }
}

fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    let (seconds, nanos) = time.to_parts();
    prost_types::Timestamp { seconds, nanos }
}
