//! `tessera events`: a service's dead letters, listed, shown, replayed and dropped. Thin calls of its EventsService.

use std::time::Duration;

use jiff::Timestamp;
use proto::events::v1::{
    DeadLetter, DropDeadLetterRequest, GetDeadLetterRequest, ListDeadLettersRequest, ReplayDeadLettersRequest,
    events_service_client::EventsServiceClient,
};
use serde_json::{Value, json};
use tonic::{Request, Response, Status};

use crate::{
    args::{DropEventArgs, EventsCommand, EventsDeed, EventsTarget, ReplayEventsArgs, ShowEventArgs},
    call,
    channel::Line,
    failure::Failure,
    output::{self, Layout, Output, Table},
    status,
};

/// The most that the service answers at once.
const PAGE: i32 = 200;

/// Does what is asked.
pub(crate) async fn run(command: &EventsCommand, output: Output) -> Result<(), Failure> {
    match &command.deed {
        EventsDeed::Dead(target) => dead(target, output).await,
        EventsDeed::Show(args) => show(args, output).await,
        EventsDeed::Replay(args) => replay(args, output).await,
        EventsDeed::Drop(args) => drop_one(args, output).await,
    }
}

async fn dead(target: &EventsTarget, output: Output) -> Result<(), Failure> {
    let mut client = client(target).await?;
    let (mut letters, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListDeadLettersRequest {
            page_size: PAGE,
            page_token,
        };
        let answer = asked(target.timeout, request, |request| client.list_dead_letters(request)).await;
        let answer = answer.map_err(|status| failed(target, "cannot list dead letters", &status))?;
        letters.extend(answer.dead_letters);
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let listed: Vec<Value> = letters.iter().map(document).collect();
    output.print(&json!({ "dead_letters": listed }), || {
        if letters.is_empty() {
            return format!("{} has no dead letters.", output::plain(&target.target));
        }
        let mut table = Table::new(["event", "kind", "key", "written", "attempts", "holds back", "error"]);
        for letter in &letters {
            table.row([
                letter.event_id.clone(),
                letter.kind.clone(),
                letter.key.clone(),
                written(letter).map(output::instant).unwrap_or_default(),
                letter.attempts.to_string(),
                letter.held_back.to_string(),
                letter.error.clone(),
            ]);
        }
        table.render()
    })
}

async fn show(args: &ShowEventArgs, output: Output) -> Result<(), Failure> {
    let mut client = client(&args.target).await?;
    let request = GetDeadLetterRequest {
        event_id: args.id.clone(),
    };
    let answer = asked(args.target.timeout, request, |request| client.get_dead_letter(request)).await;
    let answer = answer.map_err(|status| failed(&args.target, "cannot show the dead letter", &status))?;
    output.json(&document(&answer.dead_letter.unwrap_or_default()), Layout::Readable)
}

async fn replay(args: &ReplayEventsArgs, output: Output) -> Result<(), Failure> {
    let mut client = client(&args.target).await?;
    let request = ReplayDeadLettersRequest {
        event_ids: args.ids.clone(),
        all: args.all,
    };
    let answer = asked(args.target.timeout, request, |request| {
        client.replay_dead_letters(request)
    })
    .await;
    let answer = answer.map_err(|status| failed(&args.target, "nothing was replayed", &status))?;
    output.print(&json!({ "replayed": answer.replayed }), || {
        let count = usize::try_from(answer.replayed).unwrap_or_default();
        format!("{} on the way again.", output::count(count, "dead letter"))
    })
}

async fn drop_one(args: &DropEventArgs, output: Output) -> Result<(), Failure> {
    let mut client = client(&args.target).await?;
    let request = DropDeadLetterRequest {
        event_id: args.id.clone(),
        reason: args.why.clone(),
    };
    let answer = asked(args.target.timeout, request, |request| client.drop_dead_letter(request)).await;
    answer.map_err(|status| failed(&args.target, "nothing was dropped", &status))?;
    output.print(&json!({ "event_id": args.id, "dropped": true }), || {
        format!(
            "{} is dropped; the later events of its key go on.",
            output::plain(&args.id)
        )
    })
}

async fn client(target: &EventsTarget) -> Result<EventsServiceClient<Line>, Failure> {
    let line = call::reach(&target.target, target.bearer.as_ref(), &target.discovery).await?;
    Ok(EventsServiceClient::new(line))
}

async fn asked<T, A, F>(patience: Duration, request: T, call: impl FnOnce(Request<T>) -> F) -> Result<A, Status>
where
    F: Future<Output = Result<Response<A>, Status>>,
{
    let mut request = Request::new(request);
    request.set_timeout(patience);
    let answer = tokio::time::timeout(patience, call(request)).await;
    let late = || Status::deadline_exceeded(format!("no answer within {}", output::duration(patience)));
    answer.map_err(|_| late())?.map(Response::into_inner)
}

fn failed(target: &EventsTarget, what: &str, status: &Status) -> Failure {
    status::failure(&format!("{}: {what}", output::plain(&target.target)), status)
}

/// As machines read it; the body as what it is.
fn document(letter: &DeadLetter) -> Value {
    json!({
        "event_id": letter.event_id,
        "kind": letter.kind,
        "key": letter.key,
        "body": serde_json::from_str(&letter.body).unwrap_or(Value::String(letter.body.clone())),
        "created_at": written(letter).map(output::instant),
        "attempts": letter.attempts,
        "error": letter.error,
        "held_back": letter.held_back,
        "traceparent": letter.traceparent,
    })
}

fn written(letter: &DeadLetter) -> Option<Timestamp> {
    let at = letter.created_at.as_ref()?;
    Timestamp::new(at.seconds, at.nanos).ok()
}
