//! What an instance tells of its load to callers that ask, as `service-host` does: ORCA reports (gRFC A51) in the trailers, with
//! the calls in flight and the median latency of the latest calls that began among about as many.
//!
//! Not service-host itself: there health checks are no work, and here they are all the work there is.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use tonic::metadata::{MetadataMap, MetadataValue};
use tower::Service;

const ASK: &str = "tessera-load-report";
const REPORT: &str = "endpoint-load-metrics-bin";
/// Calls in flight by powers of two.
const BUCKETS: usize = 17;
/// As many latencies of each, not older than that.
const KEPT: usize = 15;
const FRESH: Duration = Duration::from_secs(5);

/// Counts and remembers.
#[derive(Default)]
pub(crate) struct Meter {
    in_flight: AtomicUsize,
    buckets: Mutex<[VecDeque<(Instant, Duration)>; BUCKETS]>,
}

/// A call in flight until this is dropped.
pub(crate) struct InFlight<'a> {
    meter: &'a Meter,
    among: usize,
    began: Instant,
}

impl Meter {
    pub(crate) fn begin(&self) -> InFlight<'_> {
        InFlight {
            meter: self,
            among: self.in_flight.fetch_add(1, Relaxed) + 1,
            began: Instant::now(),
        }
    }

    /// The median latency of calls among about so many; of none, of those among nearly as many.
    fn latency(&self, in_flight: usize) -> Duration {
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let median = |at: usize| {
            let fresh = buckets.get(at)?.iter().filter(|(at, _)| at.elapsed() <= FRESH);
            let mut fresh: Vec<Duration> = fresh.map(|(_, latency)| *latency).collect();
            fresh.sort_unstable();
            fresh.get(fresh.len() / 2).copied()
        };
        let here = bucket(in_flight);
        let near = |distance: usize| {
            here.checked_sub(distance)
                .and_then(median)
                .or_else(|| median(here + distance))
        };
        (0..BUCKETS).find_map(near).unwrap_or_default()
    }

    fn report(&self) -> Vec<u8> {
        let in_flight = self.in_flight.load(Relaxed);
        let latency = self.latency(in_flight).as_secs_f64() * 1e3;
        let mut report = Vec::new();
        for (name, value) in [("rif", in_flight as f64), ("latency", latency)] {
            // `named_metrics`, number 8: a map from string to double.
            let mut entry = vec![1 << 3 | 2, name.len() as u8];
            entry.extend(name.as_bytes());
            entry.push(2 << 3 | 1);
            entry.extend(value.to_le_bytes());
            report.extend([8 << 3 | 2, entry.len() as u8]);
            report.extend(entry);
        }
        report
    }
}

fn bucket(in_flight: usize) -> usize {
    ((usize::BITS - in_flight.leading_zeros()) as usize).min(BUCKETS - 1)
}

impl InFlight<'_> {
    /// How many there were when it came, itself included.
    pub(crate) fn among(&self) -> usize {
        self.among
    }

    pub(crate) fn served(self) {
        let mut buckets = self.meter.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = &mut buckets[bucket(self.among)];
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back((Instant::now(), self.began.elapsed()));
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.meter.in_flight.fetch_sub(1, Relaxed);
    }
}

/// Puts reports in the trailers of responses to requests that ask for them.
#[derive(Clone)]
pub(crate) struct Reporting<S> {
    inner: S,
    meter: Arc<Meter>,
}

impl<S> Reporting<S> {
    pub(crate) fn new(inner: S, meter: Arc<Meter>) -> Self {
        Self { inner, meter }
    }
}

impl<S, B> Service<Request<B>> for Reporting<S>
where
    S: Service<Request<B>, Response = Response<tonic::body::Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Reported>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let asks = request.headers().contains_key(ASK);
        let meter = asks.then(|| Arc::clone(&self.meter));
        let response = self.inner.call(request);
        Box::pin(async move { Ok(response.await?.map(|inner| Reported { inner, meter })) })
    }
}

/// A body with a report in its trailers, if one was asked for.
pub(crate) struct Reported {
    inner: tonic::body::Body,
    meter: Option<Arc<Meter>>,
}

impl Body for Reported {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let mut polled = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let (Some(Ok(frame)), Some(meter)) = (&mut polled, &self.meter)
            && let Some(trailers) = frame.trailers_mut()
        {
            let mut report = MetadataMap::new();
            report.insert_bin(REPORT, MetadataValue::from_bytes(&meter.report()));
            trailers.extend(report.into_headers());
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
