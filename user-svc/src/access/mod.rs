//! Who may call what. `rules` is the table by RPC, which looks at roles; `own` compares accounts, once the body is read.

pub(crate) mod rules;

use identity::Caller;
use uuid::Uuid;

use crate::domain::refusal::Refusal;

/// Whether the caller may see and change what belongs to that account.
pub(crate) fn own(caller: &Caller, account: Uuid) -> Result<(), Refusal> {
    if caller.may_act_for(account) {
        Ok(())
    } else {
        Err(Refusal::NotYours)
    }
}
