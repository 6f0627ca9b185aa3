//! What a request may be made of, judged while it arrives and before anything of it is decoded.
//!
//! Two bytes on the wire are an empty entry of a repeated field, and hundreds in memory once it is decoded: a Register of 2.5 MiB
//! became 570 MB, which was held for as long as its sender kept the stream open. So the fields of a message are counted as they
//! come by ([`meter`]), and what has more than any good request is refused at that byte. What the fields say is not looked at
//! here; the rules for that, which name each field, are `validate`'s.
//!
//! A request that its caller breaks off ends with an error here, whatever the code of the reset.

mod meter;

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use service_host::status;
use tonic::{Code, Status, body::Body, server::NamedService};
use tower_service::Service;

use self::meter::{Excess, Meter, Shape};

/// The largest Register, in bytes: 64 instances with all the metadata (16 KiB), gRPC services (64 of 255) and endpoints (8 of
/// 253) that `limits` allows take some 2.3 MiB.
pub(super) const REGISTER_BYTES: usize = 2_560 * 1_024;
/// Messages that hold names and a token, one of each.
const NAMES_BYTES: usize = 16 * 1_024;

/// What the messages of a method may be made of.
#[derive(Debug)]
struct Most {
    /// Bytes of a message.
    bytes: usize,
    /// Fields of a message itself. Well above what `limits` allows, so that who errs a little is answered by `validate`.
    entries: usize,
    /// Those and the fields of its messages in `shapes`.
    fields: usize,
    /// The field that is meant when there are too many.
    repeated: &'static str,
    /// Its fields that are messages with repeated fields of their own.
    shapes: &'static [Shape],
}

/// By the numbers of the fields.
const REGISTER: Most = Most {
    bytes: REGISTER_BYTES,
    entries: 1_024,
    // 64 instances of 19 fields, 8 endpoints, 64 gRPC services and 64 pairs of metadata are 9,930.
    fields: 10_240,
    repeated: "instances",
    shapes: &[Shape::new(2)],
};
const KEEP_ALIVE: Most = Most {
    repeated: "renewals",
    ..MANY
};
const DEREGISTER: Most = Most {
    repeated: "instance_ids",
    ..MANY
};
const UPDATE_INSTANCE: Most = Most {
    repeated: "instance",
    // The instance, and the mask.
    shapes: &[Shape::new(3), Shape::new(4)],
    ..MANY
};
/// A thousand entries of 130 bytes at the most.
const MANY: Most = Most {
    bytes: service_host::MAX_REQUEST_MESSAGE,
    entries: 2_048,
    fields: 2_048,
    repeated: "",
    shapes: &[],
};
const NAMES: Most = Most {
    bytes: NAMES_BYTES,
    repeated: "request",
    ..MANY
};

impl Most {
    /// Of a method, by its path.
    fn of(path: &str) -> &'static Self {
        match path.rsplit('/').next() {
            Some("Register") => &REGISTER,
            Some("KeepAlive") => &KEEP_ALIVE,
            Some("Deregister") => &DEREGISTER,
            Some("UpdateInstance") => &UPDATE_INSTANCE,
            _ => &NAMES,
        }
    }

    fn refusal(&self, excess: Excess) -> Status {
        match excess {
            // As service-host words it for every other server.
            Excess::Bytes(found) => status::error_with(
                Code::ResourceExhausted,
                "MESSAGE_TOO_LARGE",
                format!(
                    "the request message has {found} bytes; this method takes at most {}",
                    self.bytes
                ),
                [("size", found.to_string()), ("limit", self.bytes.to_string())],
            ),
            Excess::Fields => status::invalid([(self.repeated, "many times more values than are allowed")]),
            Excess::Malformed => {
                let text = "the request is not a valid message: its fields do not fit into its length";
                status::error(Code::InvalidArgument, "MALFORMED_MESSAGE", text)
            }
        }
    }
}

/// A service whose requests are judged while they arrive.
#[derive(Debug, Clone)]
pub(super) struct Intake<S>(pub(super) S);

impl<S: NamedService> NamedService for Intake<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Intake<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let most = Most::of(request.uri().path());
        self.0.call(request.map(|body| Body::new(Metered::new(body, most))))
    }
}

/// A caller that resets its stream with CANCEL has not said that its request is whole, but tonic reads it so where it is told
/// that code.
fn broken_off() -> Status {
    status::error(Code::Aborted, "BROKEN_OFF", "the caller has given up this call")
}

pin_project! {
    /// A request's body that ends with an error where its messages exceed what they may be made of.
    struct Metered {
        // None after that: what is buffered for the stream is given back at once.
        #[pin]
        inner: Option<Body>,
        meter: Meter,
        most: &'static Most,
    }
}

impl Metered {
    fn new(inner: Body, most: &'static Most) -> Self {
        Self {
            inner: Some(inner),
            meter: Meter::new(most.bytes, most.entries, most.fields, most.shapes),
            most,
        }
    }
}

impl http_body::Body for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let frame = ready!(inner.poll_frame(cx));
        let refusal = match &frame {
            Some(Ok(frame)) => {
                let fed = frame.data_ref().map_or(Ok(()), |data| this.meter.feed(data));
                fed.err().map(|excess| this.most.refusal(excess))
            }
            Some(Err(status)) if status.code() == Code::Cancelled => Some(broken_off()),
            _ => None,
        };
        if let Some(refusal) = refusal {
            this.inner.set(None);
            return Poll::Ready(Some(Err(refusal)));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

#[cfg(test)]
mod tests;
