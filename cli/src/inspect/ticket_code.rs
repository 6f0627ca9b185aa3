//! `tessera ticket-code`: what a gate without a network does. What a code is and how it is signed is ticket-svc's business.

use std::{io::Read as _, path::Path};

use serde_json::{Value, json};
use ticket_svc::code::{self, KeySet, MAX_CODE};

use crate::{
    args::{TicketCodeCommand, TicketCodeDeed, VerifyCodeArgs},
    failure::Failure,
    output::Output,
};

/// Does what is asked with a code.
pub(crate) fn run(command: &TicketCodeCommand, output: Output) -> Result<(), Failure> {
    match &command.deed {
        TicketCodeDeed::Verify(args) => verify(args, output),
    }
}

fn verify(args: &VerifyCodeArgs, output: Output) -> Result<(), Failure> {
    let keys = keys(&args.keys)?;
    let code = match args.code.as_str() {
        "-" => from_stdin()?,
        code => code.to_owned(),
    };
    let admission =
        code::verify(&keys, code.trim()).map_err(|error| Failure::new("the ticket is not good").why(error))?;
    if let Some(event) = args.event.filter(|event| *event != admission.event_id) {
        return Err(Failure::new("the ticket is not good")
            .why(format!("it is for event {}, not for {event}", admission.event_id)));
    }
    let document = json!({
        "ticket_id": admission.ticket_id.to_string(),
        "event_id": admission.event_id.to_string(),
        "seat_id": admission.seat,
        "key": admission.kid.as_str(),
    });
    output.print(&document, || {
        format!(
            "Good: seat {}, ticket {} for event {}. Whether it was refunded since, CheckTicket knows.",
            crate::output::plain(&admission.seat),
            admission.ticket_id,
            admission.event_id
        )
    })
}

/// A little more than a code has; the rest of an endless stdin is not read.
fn from_stdin() -> Result<String, Failure> {
    let mut code = String::new();
    let read = std::io::stdin().take(2 * MAX_CODE as u64).read_to_string(&mut code);
    read.map_err(|error| Failure::usage("the code cannot be read from stdin").because(&error))?;
    Ok(code)
}

/// A key set, or the answer of GetTicketKeys with the key set in it as text.
fn keys(file: &Path) -> Result<KeySet, Failure> {
    let unusable = || {
        Failure::usage(format!("{} holds no keys", file.display())).advice(
            "Fetch them: tessera call ticket-svc tessera.ticket.v1.TicketService/GetTicketKeys '{}' > ticket-keys.json",
        )
    };
    let text = std::fs::read_to_string(file).map_err(|error| unusable().because(&error))?;
    let answer: Option<Value> = serde_json::from_str(&text).ok();
    let set = answer
        .as_ref()
        .and_then(|answer| answer.get("jwks")?.as_str())
        .unwrap_or(&text);
    KeySet::from_jwks(set).map_err(|error| unusable().because(&error))
}
