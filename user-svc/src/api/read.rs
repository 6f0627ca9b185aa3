//! Requests as domain values, or INVALID_ARGUMENT with everything that is wrong with them. Requests with passwords are taken
//! apart here and never printed.

use identity::Roles;
use proto::user::v1::{self, buy_ticket_request};
use service_host::status;
use service_store::{Currency, Page, PageSizes, Text, TimeCursor, Violations};
use tonic::Status;
use uuid::Uuid;

use crate::{
    domain::{
        account::{Change, Email, NewUser, Password},
        order::{ChosenSeats, MAX_SEATS, NewOrder, Quantity, SeatId, Selection},
        refusal::Refusal,
        session::{MOST_SESSIONS, RefreshToken},
        wallet::TopUp,
    },
    store::StoreError,
};

/// How many orders a page has.
const ORDERS: PageSizes = PageSizes { default: 50, max: 200 };

/// How many entries a page of a statement has.
const ENTRIES: PageSizes = PageSizes { default: 50, max: 200 };

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

/// What cannot be a refresh token is answered like one of no session: it is a credential, and no field to be put right.
pub(super) fn refresh_session(request: &v1::RefreshSessionRequest) -> Result<RefreshToken, Status> {
    RefreshToken::read(&request.refresh_token).ok_or_else(|| StoreError::from(Refusal::SessionEnded).into())
}

pub(super) fn list_sessions(request: &v1::ListSessionsRequest) -> Result<Uuid, Status> {
    one_id("user_id", &request.user_id)
}

pub(super) fn revoke_sessions(request: &v1::RevokeSessionsRequest) -> Result<(Uuid, Vec<Uuid>), Status> {
    let mut violations = Violations::default();
    let user_id = violations.uuid("user_id", &request.user_id);
    let ids = if request.session_ids.len() > MOST_SESSIONS {
        violations.check("session_ids", Err("must have at most 20 sessions"))
    } else {
        let ids = request.session_ids.iter().enumerate();
        let ids: Vec<_> = ids
            .map(|(index, id)| violations.uuid(&format!("session_ids[{index}]"), id))
            .collect();
        ids.into_iter().collect()
    };
    match (user_id, ids) {
        (Some(user_id), Some(ids)) => Ok((user_id, ids)),
        _ => Err(status::invalid(violations)),
    }
}

pub(super) fn set_roles(request: &v1::SetRolesRequest) -> Result<(Uuid, Roles), Status> {
    let mut violations = Violations::default();
    let user_id = violations.uuid("user_id", &request.user_id);
    let roles = request.roles.iter().try_fold(Roles::NONE, |roles, role| {
        let role = match v1::Role::try_from(*role) {
            Ok(v1::Role::Buyer) => Roles::BUYER,
            Ok(v1::Role::Organiser) => Roles::ORGANISER,
            Ok(v1::Role::Operator) => Roles::OPERATOR,
            Ok(v1::Role::Unspecified) | Err(_) => return Err("must be ROLE_BUYER, ROLE_ORGANISER or ROLE_OPERATOR"),
        };
        Ok(roles.and(role))
    });
    let roles = violations.check("roles", roles);
    match (user_id, roles) {
        (Some(user_id), Some(roles)) => Ok((user_id, roles)),
        _ => Err(status::invalid(violations)),
    }
}

pub(super) fn update_profile(request: v1::UpdateProfileRequest) -> Result<(Uuid, Change, Password), Status> {
    let mut violations = Violations::default();
    let user_id = violations.uuid("user_id", &request.user_id);
    let is_empty = request.display_name.is_empty() && request.email.is_empty() && request.new_password.is_empty();
    if is_empty {
        violations.add("display_name", "must be given, or email or new_password must");
    }
    let display_name = given(&request.display_name).map(|name| violations.check("display_name", Text::try_new(name)));
    let email = given(&request.email).map(|email| violations.check("email", Email::try_new(email)));
    let new_password = given(&request.new_password).cloned();
    let new_password = new_password.map(|new| violations.check("new_password", Password::try_new(new)));
    let password = violations.check("password", Password::try_typed(request.password));
    // `None` in `Some` is a violation, which has been noted.
    let sound = |is_sound: bool| (is_sound && !is_empty).then_some(());
    let all = display_name != Some(None) && email != Some(None) && !matches!(new_password, Some(None));
    match (user_id, sound(all), password) {
        (Some(user_id), Some(()), Some(password)) => Ok((
            user_id,
            Change {
                display_name: display_name.flatten(),
                email: email.flatten(),
                new_password: new_password.flatten(),
            },
            password,
        )),
        _ => Err(status::invalid(violations)),
    }
}

fn given(text: &String) -> Option<&String> {
    (!text.is_empty()).then_some(text)
}

pub(super) fn delete_user(request: v1::DeleteUserRequest) -> Result<(Uuid, Password, bool), Status> {
    let mut violations = Violations::default();
    let user_id = violations.uuid("user_id", &request.user_id);
    let password = violations.check("password", Password::try_typed(request.password));
    match (user_id, password) {
        (Some(user_id), Some(password)) => Ok((user_id, password, request.forfeit_balance)),
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

/// The refund's id, and the order's.
pub(super) fn refund_order(request: &v1::RefundOrderRequest) -> Result<(Uuid, Uuid), Status> {
    let mut violations = Violations::default();
    let request_id = violations.uuid("request_id", &request.request_id);
    let order_id = violations.uuid("order_id", &request.order_id);
    match (request_id, order_id) {
        (Some(request_id), Some(order_id)) => Ok((request_id, order_id)),
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

/// Whose, and before which number.
pub(super) fn list_statement(request: &v1::ListStatementRequest) -> Result<(Uuid, Page<i64>), Status> {
    let mut violations = Violations::default();
    let user_id = violations.uuid("user_id", &request.user_id);
    let page = Page::read(
        &mut violations,
        ENTRIES,
        request.page_size,
        &request.page_token,
        |token| token.parse().ok().filter(|number| *number > 0),
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
