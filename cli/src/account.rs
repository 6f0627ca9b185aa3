//! `tessera account`: what is done to the accounts' store itself, by whoever has it. What an account is, is user-svc's business.

use identity::Roles;
use serde_json::json;
use user_svc::{
    Location,
    offline::{self, OfflineError},
};

use crate::{
    args::{AccountCommand, AccountDeed, AccountStore, GrantArgs, GrantedRole},
    failure::Failure,
    output::{self, Output},
    roles,
};

/// Does what is asked.
pub(crate) async fn run(command: &AccountCommand, output: Output) -> Result<(), Failure> {
    match &command.deed {
        AccountDeed::Grant(args) => grant(args, output).await,
        AccountDeed::Keys(store) => {
            let keys = offline::signing_keys(location(store)?).await;
            let keys = keys.map_err(|error| failure("the keys cannot be read", &error))?;
            // The same for people and machines: it goes to a file.
            output::write_stdout(&keys.to_jwks())
        }
    }
}

async fn grant(args: &GrantArgs, output: Output) -> Result<(), Failure> {
    let wanted = args.role.iter().fold(Roles::NONE, |roles, role| {
        roles.and(match role {
            GrantedRole::Buyer => Roles::BUYER,
            GrantedRole::Organiser => Roles::ORGANISER,
            GrantedRole::Operator => Roles::OPERATOR,
        })
    });
    let granted = offline::grant(location(&args.store)?, &args.email, wanted).await;
    let roles = granted.map_err(|error| failure("nothing was granted", &error))?;
    let names: Vec<_> = roles.names().collect();
    output.print(&json!({ "email": args.email, "roles": names }), || {
        format!(
            "{} is {} now; its sessions learn of it when they are renewed, or it signs in again.",
            output::plain(&args.email),
            names.join(", ")
        )
    })
}

/// A store that is there: a wrong path must not make an empty one.
fn location(store: &AccountStore) -> Result<Location, Failure> {
    let location: Location = match &store.store {
        Some(store) => roles::address(store)?.into(),
        None => store.data_dir.join("users.db").as_path().into(),
    };
    match location.file() {
        Some(file) if !file.is_file() => Err(Failure::new(format!("there is no store {location}"))
            .advice("pass --store or --data-dir as the user service has it")),
        _ => Ok(location),
    }
}

fn failure(what: &str, error: &OfflineError) -> Failure {
    Failure::new(what).because(error)
}
