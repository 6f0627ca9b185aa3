//! `tessera call`: any method of any server, with JSON, without its proto files. Finds an instance by discovery, its
//! types by server reflection over the same balanced channel, and prints what it answers.

mod codec;
mod reflection;
mod request;

use std::{
    io::Read as _,
    time::{Duration, Instant},
};

use http::uri::PathAndQuery;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use registry_client::Bearer;
use tonic::{Code, Request, Response, Status, Streaming, client::Grpc};

use self::{
    codec::DynamicCodec,
    reflection::ReflectionError,
    request::{Arity, RequestError},
};
use crate::{
    args::{CallArgs, Discovery, MethodName, TokenArgs, TokenSource},
    channel::{self, Line},
    failure::{Exit, Failure, chain},
    instances, output,
    output::{Layout, Output},
    registry::{self, credentials, security},
    status,
    trace::Root,
};

/// The largest request that is read from a file or from stdin: the servers take 4 MiB of protobuf.
const LARGEST_REQUEST: u64 = 64 << 20;

/// Calls a method and prints what it answers.
pub(crate) async fn run(args: &CallArgs, output: Output) -> Result<(), Failure> {
    let text = read(args.request.as_deref().or(args.data.as_deref()).unwrap_or("{}"))?;
    let channel = reach(&args.target, args.bearer.as_ref(), &args.discovery).await?;
    let described = tokio::time::timeout(
        args.timeout,
        reflection::describe(channel.clone(), &args.method.service),
    );
    let service = described
        .await
        .unwrap_or_else(|_| Err(late(args.timeout).into()))
        .map_err(|error| unreflected(args, error))?;
    let method = service
        .methods()
        .find(|method| method.name() == args.method.method)
        .ok_or_else(|| {
            let known: Vec<String> = service.methods().map(|method| method.name().to_owned()).collect();
            Failure::new(format!("{} has no method {}", args.method.service, args.method.method))
                .advice(format!("it has {}", known.join(", ")))
        })?;
    let arity = if method.is_client_streaming() {
        Arity::Many
    } else {
        Arity::One
    };
    let requests = request::messages(&text, &method.input(), arity).map_err(malformed)?;

    let root = Root::begin("tessera call");
    let begun = Instant::now();
    let called = root.around(call(channel, &args.method, &method, requests, args.timeout, output));
    let answered = tokio::time::timeout(args.timeout, called).await;
    let outcome = answered.unwrap_or_else(|_| Err(Trouble::Status(late(args.timeout))));
    let trace_id = root.trace_id().to_owned();
    root.end();
    let by = match outcome {
        Ok(by) => by,
        Err(Trouble::Output(failure)) => return Err(failure),
        Err(Trouble::Status(status)) => {
            let failure = status::failure(&format!("{} failed", args.method), &status);
            return Err(if args.verbose {
                failure.detail(format!("trace {trace_id}"))
            } else {
                failure
            });
        }
    };
    if args.verbose {
        let by = output::plain(by.as_deref().unwrap_or(&args.target));
        output::note(&format!(
            "answered by {by} in {}, trace {trace_id}",
            output::duration(begun.elapsed())
        ));
    }
    Ok(())
}

/// A channel to what the call is for: a service by discovery, or one server.
pub(crate) async fn reach(target: &str, bearer: Option<&TokenSource>, discovery: &Discovery) -> Result<Line, Failure> {
    // First of all: what is wrong with it is said of this flag, whichever way the call goes.
    let account = credentials::token_of(bearer, "--bearer")?;
    if target.contains(':') {
        let origin = crate::args::origin(target)
            .map_err(|right| Failure::usage(format!("{} is no server", target)).advice(right))?;
        // A person has named this server. One that was found by discovery has only said that it exists: it is shown no token.
        let tls = security::client(&discovery.tls)?;
        // The token of an account, where one is given; otherwise that of the registry, which may be what is called.
        let shown = match bearer {
            Some(bearer) => &TokenArgs {
                token: Some(bearer.clone()),
                insecure: discovery.shown.insecure,
            },
            None => &discovery.shown,
        };
        let bearer = credentials::shown_to([origin.as_str()], tls.as_ref(), shown)?;
        let channel = channel::fixed([origin.as_str()], tls, &tls::Expected::Host)?;
        return Ok(Line::new(channel, bearer));
    }
    let registry = registry::open(discovery)?;
    // Asked for first: a name that nobody has would otherwise be waited for in vain.
    let known = registry
        .list_services()
        .await
        .map_err(|error| registry::failure(&registry, &error))?;
    match known.iter().find(|known| known.service == target) {
        Some(service) if service.callable > 0 => {}
        Some(_) => {
            return Err(Failure::new(format!("no instance of {} takes calls", target))
                .advice(format!("see why with `tessera instances {}`", target))
                .exit(Exit::Grpc(Code::Unavailable)));
        }
        None => {
            let known = known.iter().map(|known| known.service.as_str());
            return Err(instances::unknown_service(target, known));
        }
    }
    let channel = channel::to_service(&registry, target);
    Ok(Line::new(channel, Bearer::new(account)))
}

/// Why a call did not come to its end.
enum Trouble {
    Status(Status),
    Output(Failure),
}

impl From<Status> for Trouble {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Output(failure)
    }
}

/// Makes the call and prints each answer as it comes; returns who answered.
async fn call(
    channel: Line,
    name: &MethodName,
    method: &MethodDescriptor,
    mut requests: Vec<DynamicMessage>,
    timeout: Duration,
    output: Output,
) -> Result<Option<String>, Trouble> {
    let path: PathAndQuery = format!("/{name}")
        .parse()
        .map_err(|_| Status::internal("the method's name is no path"))?;
    let codec = DynamicCodec::new(method.output());
    let mut client = Grpc::new(channel);
    client
        .ready()
        .await
        .map_err(|error| Status::unavailable(chain(&error)))?;
    if method.is_client_streaming() {
        let request = with_deadline(tokio_stream::iter(requests), timeout);
        if method.is_server_streaming() {
            return print_stream(client.streaming(request, path, codec).await?, output).await;
        }
        return print_one(client.client_streaming(request, path, codec).await?, output);
    }
    let one = requests.pop().ok_or_else(|| Status::internal("there is no request"))?;
    let request = with_deadline(one, timeout);
    if method.is_server_streaming() {
        return print_stream(client.server_streaming(request, path, codec).await?, output).await;
    }
    print_one(client.unary(request, path, codec).await?, output)
}

fn with_deadline<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

fn print_one(response: Response<DynamicMessage>, output: Output) -> Result<Option<String>, Trouble> {
    let by = answered_by(&response);
    output.json(response.get_ref(), Layout::Readable)?;
    Ok(by)
}

async fn print_stream(
    response: Response<Streaming<DynamicMessage>>,
    output: Output,
) -> Result<Option<String>, Trouble> {
    let by = answered_by(&response);
    let mut messages = response.into_inner();
    while let Some(message) = messages.message().await? {
        output.json(&message, Layout::Line)?;
    }
    Ok(by)
}

fn answered_by<T>(response: &Response<T>) -> Option<String> {
    let instance = response.metadata().get("tessera-instance")?;
    instance.to_str().ok().map(ToOwned::to_owned)
}

/// The request's text: itself, `@FILE`, or `-` for stdin.
fn read(source: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let (name, read) = match (source, source.strip_prefix('@')) {
        ("-", _) => (
            "stdin",
            std::io::stdin().take(LARGEST_REQUEST).read_to_string(&mut text),
        ),
        (_, Some(path)) => {
            let file = std::fs::File::open(path);
            (
                path,
                file.and_then(|file| file.take(LARGEST_REQUEST).read_to_string(&mut text)),
            )
        }
        _ => return Ok(source.to_owned()),
    };
    match read {
        Ok(_) => Ok(text),
        Err(error) => Err(Failure::usage(format!("the request cannot be read from {name}")).because(&error)),
    }
}

fn late(timeout: Duration) -> Status {
    Status::deadline_exceeded(format!("no answer within {}", output::duration(timeout)))
}

fn malformed(error: RequestError) -> Failure {
    let failure = Failure::usage(error.to_string()).advice(error.advice());
    match error.why() {
        Some(why) => failure.why(why),
        None => failure,
    }
}

fn unreflected(args: &CallArgs, error: ReflectionError) -> Failure {
    let target = &args.target;
    match error {
        ReflectionError::UnknownService { service, known } => {
            Failure::new(format!("{target} does not serve {service}")).advice(format!("it serves {}", known.join(", ")))
        }
        ReflectionError::Absent => Failure::new(format!("{target} has no server reflection"))
            .why("grpc.reflection.v1 is UNIMPLEMENTED there")
            .advice("call it with its proto files, for example by grpcurl -proto")
            .exit(Exit::Grpc(Code::Unimplemented)),
        ReflectionError::Failed(status) => {
            status::failure(&format!("{target} cannot be asked what it serves"), &status)
        }
        other => Failure::new(format!("{target} cannot be asked what it serves")).because(&other),
    }
}
