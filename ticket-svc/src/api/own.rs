//! Whose an event or a place in line is: compared with who calls, once the body is read. Roles were looked at before.

use identity::{Caller, Roles};
use service_host::status;
use tonic::{Code, Extensions, Status};

use crate::domain::event::{Event, OrganiserId};

/// Who calls, as the gate has found out.
pub(super) fn caller(extensions: &Extensions) -> Caller {
    extensions.get().cloned().unwrap_or(Caller::Nobody)
}

/// Whose event a new one is: an organiser makes their own, an operator anybody's.
pub(super) fn organiser(caller: &Caller, named: Option<OrganiserId>) -> Result<Option<OrganiserId>, Status> {
    let Some(user) = caller.user().filter(|_| !is_operator(caller)) else {
        return Ok(named);
    };
    let own = OrganiserId::try_new(&user.to_string()).ok();
    if named.is_none() || named == own {
        Ok(own)
    } else {
        Err(not_yours("an event is made for oneself: leave organiser_id empty"))
    }
}

/// May the caller see what only the organiser of the event sees?
pub(super) fn event(caller: &Caller, event: &Event) -> Result<(), Status> {
    let organiser = event.terms.organiser.as_ref().map(OrganiserId::as_str);
    let is_organiser = caller
        .user()
        .is_some_and(|user| organiser == Some(user.to_string().as_str()));
    if is_organiser || is_operator(caller) {
        Ok(())
    } else {
        Err(not_yours("this is another organiser's event"))
    }
}

/// May the caller wait in line as this buyer?
pub(super) fn buyer(caller: &Caller, buyer: &str) -> Result<(), Status> {
    let is_buyer = caller.user().is_some_and(|user| user.to_string() == buyer);
    if is_buyer || is_operator(caller) {
        Ok(())
    } else {
        Err(not_yours("one waits in line for oneself: buyer_id is the account's id"))
    }
}

fn is_operator(caller: &Caller) -> bool {
    caller.roles().meets(Roles::OPERATOR)
}

fn not_yours(said: &'static str) -> Status {
    status::error(Code::PermissionDenied, "NOT_YOURS", said)
}
