//! `tessera token`: makes, lists and revokes tokens. What a token is and what its file looks like is registry-svc's business;
//! registries that read the file follow it by themselves.

use serde_json::json;

use registry_svc::tokens::{self, Listed, TokensError, Wanted};

use crate::{
    args::{IssueArgs, TokenCommand, TokenDeed},
    failure::Failure,
    output::{self, Output, Table},
};

/// Does what is asked with a file of tokens.
pub(crate) fn run(command: &TokenCommand, output: Output) -> Result<(), Failure> {
    match &command.deed {
        TokenDeed::Issue(args) => issue(args, output),
        TokenDeed::List(args) => {
            let tokens = tokens::list(&args.file).map_err(|error| failure(&error))?;
            output.print(
                &json!({ "tokens": tokens.iter().map(document).collect::<Vec<_>>() }),
                || table(&tokens),
            )
        }
        TokenDeed::Revoke(args) => {
            let revoked = tokens::revoke(&args.file.file, &args.id).map_err(|error| failure(&error))?;
            output.print(&json!({ "revoked": document(&revoked) }), || {
                let name = output::plain(&revoked.name);
                format!(
                    "{name} ({}) is revoked; registries that read the file refuse it within 2 s.",
                    revoked.id
                )
            })
        }
    }
}

fn issue(args: &IssueArgs, output: Output) -> Result<(), Failure> {
    let wanted = Wanted {
        name: args.name.clone(),
        scopes: args.scope.clone(),
        ttl: args.ttl,
    };
    let (listed, secret) = tokens::issue(&args.file.file, &wanted).map_err(|error| failure(&error))?;
    let mut answer = document(&listed);
    answer["token"] = json!(secret.reveal());
    // The token alone goes to stdout, so that it can be sent to a file.
    output.print(&answer, || secret.reveal().to_owned())?;
    let until = listed
        .not_after
        .map_or("until it is revoked".to_owned(), |end| format!("until {}", time(end)));
    output::note(&format!(
        "{} may {} {until}. This is the only time that it is shown; {} has its hash.",
        output::plain(&listed.name),
        listed.scopes.join(", "),
        args.file.file.display()
    ));
    Ok(())
}

fn document(token: &Listed) -> serde_json::Value {
    json!({
        "id": token.id,
        "name": token.name,
        "scopes": token.scopes,
        "issued_at": time(token.issued_at),
        "not_after": token.not_after.map(time),
        "expired": token.expired,
    })
}

fn table(tokens: &[Listed]) -> String {
    if tokens.is_empty() {
        return "There are no tokens: nobody can use a registry that reads this file.".to_owned();
    }
    let mut table = Table::new(["id", "name", "scopes", "issued", "good until"]);
    for token in tokens {
        table.row([
            token.id.clone(),
            token.name.clone(),
            token.scopes.join(", "),
            time(token.issued_at),
            match token.not_after {
                Some(end) if token.expired => format!("{} (over)", time(end)),
                Some(end) => time(end),
                None => "no end".to_owned(),
            },
        ]);
    }
    table.render()
}

fn time(seconds: u64) -> String {
    let time = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(String::new, |time| time.to_string())
}

fn failure(error: &TokensError) -> Failure {
    let failure = Failure::new(error.to_string());
    match error {
        TokensError::Wanted(_) => Failure::usage(error.to_string()),
        _ => failure,
    }
}
