//! Requests as domain values, or INVALID_ARGUMENT with everything that is wrong with them. Requests with passwords are taken
//! apart here and never printed.

use proto::user::v1::{self, buy_ticket_request};
use service_host::status;
use service_store::{Currency, Page, PageSizes, Text, TimeCursor, Violations};
use tonic::Status;
use uuid::Uuid;

use crate::domain::{
    account::{Email, NewUser, Password},
    order::{ChosenSeats, MAX_SEATS, NewOrder, Quantity, SeatId, Selection},
    wallet::TopUp,
};

/// How many orders a page has.
const ORDERS: PageSizes = PageSizes { default: 50, max: 200 };

pub(super) fn create_user(request: v1::CreateUserRequest) -> Result<(NewUser, Password), Status> {
    let mut violations = Violations::default();
    let request_id = violations.uuid("request_id", &request.request_id);
    let email = violations.check("email", Email::try_new(&request.email));
    let display_name = violations.check("display_name", Text::try_new(&request.display_name));
    let password = violations.check("password", Password::try_new(request.password));
    let currency = match request.currency_code.as_str() {
        "" => Some(Currency::EUR),
        code => violations.check("currency_code", Currency::try_new(code)),
    };
    match (request_id, email, display_name, password, currency) {
        (Some(request_id), Some(email), Some(display_name), Some(password), Some(currency)) => Ok((
            NewUser {
                request_id,
                email,
                display_name,
                currency,
            },
            password,
        )),
        _ => Err(status::invalid(violations)),
    }
}

pub(super) fn sign_in(request: v1::SignInRequest) -> Result<(Email, Password), Status> {
    let mut violations = Violations::default();
    let email = violations.check("email", Email::try_new(&request.email));
    let password = violations.check("password", Password::try_typed(request.password));
    match (email, password) {
        (Some(email), Some(password)) => Ok((email, password)),
        _ => Err(status::invalid(violations)),
    }
}

pub(super) fn get_user(request: &v1::GetUserRequest) -> Result<Uuid, Status> {
    one_id("user_id", &request.user_id)
}

pub(super) fn top_up(request: &v1::TopUpRequest) -> Result<(Uuid, Uuid, TopUp), Status> {
    let mut violations = Violations::default();
    let request_id = violations.uuid("request_id", &request.request_id);
    let user_id = violations.uuid("user_id", &request.user_id);
    let amount = request.amount.clone().unwrap_or_default();
    let currency = violations.check("amount.currency_code", Currency::try_new(&amount.currency_code));
    // Checked in any currency, so that both violations are told at once.
    let top_up = TopUp::try_new(currency.unwrap_or(Currency::EUR), amount.minor_units);
    let top_up = violations.check("amount.minor_units", top_up);
    match (request_id, user_id, currency, top_up) {
        (Some(request_id), Some(user_id), Some(_), Some(top_up)) => Ok((request_id, user_id, top_up)),
        _ => Err(status::invalid(violations)),
    }
}

pub(super) fn buy_ticket(request: v1::BuyTicketRequest) -> Result<NewOrder, Status> {
    let mut violations = Violations::default();
    let id = violations.uuid("request_id", &request.request_id);
    let user_id = violations.uuid("user_id", &request.user_id);
    let event_id = violations.uuid("event_id", &request.event_id);
    let selection = selection(&mut violations, request.selection);
    match (id, user_id, event_id, selection) {
        (Some(id), Some(user_id), Some(event_id), Some(selection)) => Ok(NewOrder {
            id,
            user_id,
            event_id,
            selection,
        }),
        _ => Err(status::invalid(violations)),
    }
}

pub(super) fn get_order(request: &v1::GetOrderRequest) -> Result<Uuid, Status> {
    one_id("order_id", &request.order_id)
}

pub(super) fn watch_order(request: &v1::WatchOrderRequest) -> Result<Uuid, Status> {
    one_id("order_id", &request.order_id)
}

pub(super) fn list_orders(request: &v1::ListOrdersRequest) -> Result<(Uuid, Page<TimeCursor>), Status> {
    let mut violations = Violations::default();
    let user_id = violations.uuid("user_id", &request.user_id);
    let page = Page::read(
        &mut violations,
        ORDERS,
        request.page_size,
        &request.page_token,
        TimeCursor::from_token,
    );
    match (user_id, page) {
        (Some(user_id), Some(page)) => Ok((user_id, page)),
        _ => Err(status::invalid(violations)),
    }
}

fn one_id(field: &str, value: &str) -> Result<Uuid, Status> {
    let mut violations = Violations::default();
    let id = violations.uuid(field, value);
    id.ok_or_else(|| status::invalid(violations))
}

fn selection(violations: &mut Violations, selection: Option<buy_ticket_request::Selection>) -> Option<Selection> {
    match selection {
        None => violations.check("selection", Err("must be seats or best_available")),
        Some(buy_ticket_request::Selection::Seats(choice)) => chosen(violations, &choice.seat_ids),
        Some(buy_ticket_request::Selection::BestAvailable(best)) => {
            let quantity = violations.check("best_available.quantity", Quantity::try_new(best.quantity));
            let section = section(violations, best.section);
            Some(Selection::BestAvailable {
                quantity: quantity?,
                section: section?,
            })
        }
    }
}

/// Whether there is such a section is for the ticket service to say; this only keeps nonsense out of the store.
fn section(violations: &mut Violations, section: String) -> Option<Option<String>> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    match section.as_str() {
        "" => Some(None),
        name if name.len() <= 40 && name.bytes().all(allowed) => Some(Some(section)),
        _ => violations.check(
            "best_available.section",
            Err("must have at most 40 of A-Z, a-z, 0-9 and '-'"),
        ),
    }
}

fn chosen(violations: &mut Violations, ids: &[String]) -> Option<Selection> {
    if ids.len() > MAX_SEATS {
        return violations.check("seats.seat_ids", Err("must have 1 to 10 seats"));
    }
    let read: Vec<Option<SeatId>> = ids
        .iter()
        .enumerate()
        .map(|(index, id)| violations.check(format!("seats.seat_ids[{index}]"), SeatId::try_new(id)))
        .collect();
    let seats = read.into_iter().collect::<Option<Vec<_>>>()?;
    violations
        .check("seats.seat_ids", ChosenSeats::try_new(seats))
        .map(Selection::Seats)
}
