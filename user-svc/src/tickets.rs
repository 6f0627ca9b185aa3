//! Speaks to the ticket service, and says what its answers mean for a purchase. Retries nothing: that is the purchase's.

use std::time::Duration;

use http::header::AUTHORIZATION;
use proto::ticket::v1::{
    self, ConfirmHoldRequest, HoldSeatsRequest, RefundTicketsRequest, ReleaseHoldRequest, hold_seats_request,
    ticket_service_client::TicketServiceClient,
};
use service_host::INSTANCE_HEADER;
use service_store::{Currency, Money, failpoint};
use tonic::{Code, Request, Response, Status, metadata::MetadataMap};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::{
    domain::{
        order::{Failing, Failure, Held, Order, RefundBy, RefundRefusal, RefundRefused, SeatId, Selection},
        saga::{ConfirmOutcome, HoldOutcome, ReleaseOutcome, RevokeOutcome},
    },
    signing::Signing,
    store::StoreError,
};

/// How long one attempt may take. Calls take milliseconds; one that takes seconds has met a stopped peer, and another
/// attempt, at another instance perhaps, is the better bet.
const ATTEMPT: Duration = Duration::from_secs(3);

/// Whose reasons the platform's errors carry.
const DOMAIN: &str = "tessera";

/// The ticket service, wherever it is. Clones share the connections.
#[derive(Debug, Clone)]
pub(crate) struct Tickets {
    client: TicketServiceClient<lb::Channel>,
    /// For how long seats are asked for.
    hold_ttl: Duration,
    signing: Signing,
}

/// What was heard, and from which instance; `None` when none answered.
#[derive(Debug)]
pub(crate) struct Heard<T> {
    pub(crate) outcome: T,
    pub(crate) instance: Option<String>,
}

impl Tickets {
    pub(crate) fn new(channel: lb::Channel, hold_ttl: Duration, signing: Signing) -> Self {
        Self {
            client: TicketServiceClient::new(channel),
            hold_ttl,
            signing,
        }
    }

    /// One attempt, which shows that it comes from this service.
    fn attempt<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(ATTEMPT);
        match self.signing.service_header() {
            Ok(header) => {
                request.metadata_mut().as_mut().insert(AUTHORIZATION, header);
            }
            // Without it the ticket service says no, and the purchase tries again.
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "no service token can be signed"
            ),
        }
        request
    }

    /// Holds the order's seats; the hold's id is the order's.
    pub(crate) async fn hold(&self, order: &Order) -> Heard<HoldOutcome> {
        let request = HoldSeatsRequest {
            request_id: order.id.to_string(),
            event_id: order.event_id.to_string(),
            buyer_id: order.user_id.to_string(),
            selection: Some(selection(&order.selection)),
            // Only out of range if it were longer than any clock.
            ttl: self.hold_ttl.try_into().ok(),
            pass: String::new(),
        };
        failpoint("user.hold.call.before").await;
        let answer = self.client.clone().hold_seats(self.attempt(request)).await;
        failpoint("user.hold.call.after").await;
        let instance = instance(&answer);
        let outcome = match answer {
            Ok(answer) => held(answer.into_inner(), order.id).map_or_else(nonsense, HoldOutcome::Granted),
            Err(status) => hold_refusal(&status),
        };
        Heard { outcome, instance }
    }

    /// Turns the order's hold into tickets.
    pub(crate) async fn confirm(&self, order: &Order, held: &Held) -> Heard<ConfirmOutcome> {
        let request = ConfirmHoldRequest {
            hold_id: order.id.to_string(),
            hold_token: held.token,
            order_id: order.id.to_string(),
        };
        failpoint("user.confirm.call.before").await;
        let answer = self.client.clone().confirm_hold(self.attempt(request)).await;
        failpoint("user.confirm.call.after").await;
        let instance = instance(&answer);
        let outcome = match answer {
            Ok(answer) => match tickets(&answer.into_inner(), held) {
                Some(tickets) => ConfirmOutcome::Confirmed(tickets),
                None => {
                    tracing::error!(order = %order.id, "the confirmation names other tickets than were held");
                    ConfirmOutcome::Unknown
                }
            },
            Err(status) => confirm_refusal(&status),
        };
        Heard { outcome, instance }
    }

    /// Gives the order's seats back; also when the answer to the hold was never heard.
    pub(crate) async fn release(&self, order: &Order) -> Heard<ReleaseOutcome> {
        let token = order.held.as_ref().map_or(0, |held| held.token);
        let request = ReleaseHoldRequest {
            hold_id: order.id.to_string(),
            hold_token: token,
        };
        failpoint("user.release.call.before").await;
        let answer = self.client.clone().release_hold(self.attempt(request)).await;
        failpoint("user.release.call.after").await;
        let instance = instance(&answer);
        let outcome = match answer {
            Ok(_) => ReleaseOutcome::Settled,
            // Any reasoned refusal: there is nothing of ours to release, and repeating it will not change that.
            Err(status) if refusal_reason(&status).is_some() => ReleaseOutcome::Settled,
            Err(_) => ReleaseOutcome::Unknown,
        };
        Heard { outcome, instance }
    }
}

impl Tickets {
    /// Has the order's tickets, which are these, revoked.
    pub(crate) async fn revoke(&self, order: &Order, sold: &[Uuid]) -> Result<Heard<RevokeOutcome>, StoreError> {
        let refund = order.refund.as_ref();
        let refund = refund.ok_or(StoreError::Corrupt("a refund that nobody asked for"))?;
        let request = RefundTicketsRequest {
            order_id: order.id.to_string(),
            hold_token: order.held.as_ref().map_or(0, |held| held.token),
            request_id: refund.id.to_string(),
            by_buyer: refund.by == RefundBy::Buyer,
        };
        failpoint("user.revoke.call.before").await;
        let answer = self.client.clone().refund_tickets(self.attempt(request)).await;
        failpoint("user.revoke.call.after").await;
        let instance = instance(&answer);
        let outcome = match answer {
            Ok(answer) => {
                let void = answer.into_inner().tickets;
                let is_void = |ticket: &Uuid| void.iter().any(|void| void.id == ticket.to_string());
                if sold.iter().all(is_void) {
                    RevokeOutcome::Revoked
                } else {
                    tracing::error!(order = %order.id, "other tickets were revoked than were sold");
                    RevokeOutcome::Unknown
                }
            }
            Err(status) => revoke_refusal(order, &status),
        };
        Ok(Heard { outcome, instance })
    }
}

fn instance<T>(answer: &Result<Response<T>, Status>) -> Option<String> {
    let metadata: &MetadataMap = match answer {
        Ok(response) => response.metadata(),
        Err(status) => status.metadata(),
    };
    metadata.get(INSTANCE_HEADER)?.to_str().ok().map(str::to_owned)
}

fn selection(selection: &Selection) -> hold_seats_request::Selection {
    match selection {
        Selection::Seats(seats) => hold_seats_request::Selection::Seats(v1::SeatChoice {
            seat_ids: seats.as_slice().iter().map(|seat| seat.as_str().to_owned()).collect(),
        }),
        Selection::BestAvailable { quantity, section } => {
            hold_seats_request::Selection::BestAvailable(v1::BestAvailable {
                quantity: quantity.get(),
                section: section.clone().unwrap_or_default(),
            })
        }
    }
}

/// `None` when the answer breaks the contract.
fn held(answer: v1::HoldSeatsResponse, order_id: Uuid) -> Option<Held> {
    let hold = answer
        .hold
        .filter(|hold| hold.id == order_id.to_string() && hold.token > 0)?;
    let seats: Vec<SeatId> = hold
        .seats
        .iter()
        .map(|seat| SeatId::try_new(&seat.id))
        .collect::<Result<_, _>>()
        .ok()?;
    let total = hold.total?;
    let total = Money::try_new(Currency::try_new(&total.currency_code).ok()?, total.minor_units).ok()?;
    (!seats.is_empty()).then_some(Held {
        token: hold.token,
        seats,
        total,
    })
}

/// `None` when the answer breaks the contract.
fn tickets(answer: &v1::ConfirmHoldResponse, held: &Held) -> Option<Vec<Uuid>> {
    let ids = answer.tickets.iter().map(|ticket| Uuid::try_parse(&ticket.id).ok());
    ids.collect::<Option<Vec<_>>>()
        .filter(|ids| ids.len() == held.seats.len())
}

fn nonsense() -> HoldOutcome {
    HoldOutcome::Unknown(Failing::new(
        Failure::Unavailable,
        "the ticket service gave an answer that makes no sense; nothing was bought",
    ))
}

/// The reason of a refusal that is about this request, as against one about the state of the wire or the server. Told by
/// the ErrorInfo: codes alone do not tell a refusal of ours from one of some proxy between us.
fn refusal_reason(status: &Status) -> Option<String> {
    match status.code() {
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition => {
            let info = status.get_details_error_info()?;
            (info.domain == DOMAIN).then_some(info.reason)
        }
        _ => None,
    }
}

fn hold_refusal(status: &Status) -> HoldOutcome {
    let detail = status.message();
    let failure = match refusal_reason(status).as_deref() {
        Some("SOLD_OUT") => Failure::SoldOut,
        Some("SEAT_TAKEN") => Failure::SeatTaken,
        Some("HOLD_RELEASED" | "HOLD_EXPIRED" | "HOLD_REFUNDED") => Failure::HoldExpired,
        Some("SALE_NOT_OPEN" | "SALE_CLOSED" | "BUYER_CAP") => Failure::NotForSale,
        Some("EVENT_UNKNOWN" | "SEAT_UNKNOWN" | "SECTION_UNKNOWN" | "INVALID_ARGUMENT") => Failure::NotFound,
        Some("REQUEST_ID_REUSED") => {
            return HoldOutcome::NotOurs(Failing::new(
                Failure::Unavailable,
                "the ticket service knows this request_id from another purchase; buy again with a new one",
            ));
        }
        _ => {
            let detail = format!("the ticket service could not be asked ({detail}); nothing was bought, try again");
            let failing = Failing::new(Failure::Unavailable, detail);
            return if was_not_done(status) {
                HoldOutcome::NotDone(failing)
            } else {
                HoldOutcome::Unknown(failing)
            };
        }
    };
    HoldOutcome::Refused(Failing::new(failure, detail))
}

/// Did the request provably come to nothing? By the balancer's word that it reached no handler (`lb::Error::never_processed`),
/// or the ticket service's that its store could not be written.
fn was_not_done(status: &Status) -> bool {
    let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN);
    info.is_some_and(|info| {
        matches!(
            info.reason.as_str(),
            "NO_INSTANCES" | "NOT_READY" | "NO_ROOM" | "NOT_TAKEN" | "STORE_BUSY" | "WAIT_IN_LINE" | "TOO_MANY_HOLDS"
        )
    })
}

fn confirm_refusal(status: &Status) -> ConfirmOutcome {
    match refusal_reason(status).as_deref() {
        Some(
            "HOLD_EXPIRED" | "HOLD_RELEASED" | "HOLD_REFUNDED" | "HOLD_UNKNOWN" | "HOLD_TOKEN_WRONG" | "HOLD_CONFIRMED",
        ) => {
            let detail = format!("{}; the money is back in the wallet", status.message());
            ConfirmOutcome::Refused(Failing::new(Failure::HoldExpired, detail))
        }
        _ => ConfirmOutcome::Unknown,
    }
}

fn revoke_refusal(order: &Order, status: &Status) -> RevokeOutcome {
    let why = match refusal_reason(status).as_deref() {
        Some("REFUND_CLOSED") => RefundRefusal::Closed,
        Some("ORDER_UNKNOWN") => RefundRefusal::NoTickets,
        Some(reason) => {
            tracing::error!(order = %order.id, reason, "the ticket service does not understand a refund; asking again");
            return RevokeOutcome::Unknown;
        }
        None => return RevokeOutcome::Unknown,
    };
    let detail = format!("{}; the tickets stay good", status.message());
    RevokeOutcome::Refused(RefundRefused { why, detail })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NO_ROOM came to the balancer later than this list of its reasons, and was taken for a request that may have been
    /// carried out: a purchase that was never sent anywhere ended with a release, and in doubt.
    #[test]
    fn what_the_balancer_never_sent_was_not_done() {
        let (service, waited, discovery) = (|| "tickets".into(), Duration::ZERO, || "fixed".to_owned());
        let errors = [
            lb::Error::NoInstances {
                service: service(),
                waited,
                known: 0,
                discovery: discovery(),
            },
            lb::Error::NotReady {
                service: service(),
                waited,
                endpoints: Vec::new(),
                discovery: discovery(),
            },
            lb::Error::NoRoom {
                service: service(),
                waited,
                ready: 1,
            },
            lb::Error::NotTaken {
                service: service(),
                attempts: 3,
                address: "127.0.0.1:1".into(),
                reason: "refused".to_owned(),
            },
            lb::Error::DeadlineExceeded {
                service: service(),
                waiting_for: "a response".to_owned(),
            },
        ];
        for error in errors {
            let (shown, never_processed) = (error.to_string(), error.never_processed());
            let outcome = hold_refusal(&error.into());
            let not_done = matches!(outcome, HoldOutcome::NotDone(_));
            assert_eq!(not_done, never_processed, "{shown}: {outcome:?}");
        }
    }
}
