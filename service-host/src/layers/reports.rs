//! How loaded this instance is, told to callers that ask: requests in flight, and what requests took lately with about so many.
//!
//! That is what Prequal chooses by (Wydrowski et al., NSDI'24, section 4), in the form that gRPC has for it: an ORCA report
//! (`xds.data.orca.v3.OrcaLoadReport`, gRFC A51) in the trailers of the response. The caller asks with the header [`ASK`], so that
//! nobody else pays for it; nothing is measured before the first one does.
//!
//! | `named_metrics` | |
//! | --- | --- |
//! | `rif` | calls in flight, without health checks and reflection |
//! | `latency` | median of the latest calls that began with about as many in flight, in milliseconds, to the end of the response |
//!
//! A call that is dropped before its end leaves the count, and no latency.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tonic::{Status, metadata::BinaryMetadataValue};
use tower_service::Service;

/// With this header a caller asks for reports; its value does not matter.
pub(super) const ASK: HeaderName = HeaderName::from_static("tessera-load-report");

/// gRFC A51.
const REPORT: HeaderName = HeaderName::from_static("endpoint-load-metrics-bin");

/// Calls in flight by powers of two: 0, 1, 2 and 3, 4 to 7 ... up to 32,768 and more.
const BUCKETS: usize = 17;

/// Latencies kept of each: the median of so many is steady enough, and quickly found.
const KEPT: usize = 15;

/// Older ones say nothing of now.
const FRESH: Duration = Duration::from_secs(5);

/// Counts and remembers, for all calls of a server.
#[derive(Debug, Default)]
struct Meter {
    in_flight: AtomicU32,
    is_asked: AtomicBool,
    buckets: Mutex<[Bucket; BUCKETS]>,
}

/// The latest latencies of calls that began with about so many in flight, and when they were measured.
#[derive(Debug, Default)]
struct Bucket {
    latencies: [Option<(Instant, Duration)>; KEPT],
    next: usize,
}

impl Bucket {
    fn add(&mut self, latency: Duration, now: Instant) {
        self.latencies[self.next] = Some((now, latency));
        self.next = (self.next + 1) % KEPT;
    }

    fn median(&self, now: Instant) -> Option<Duration> {
        let mut fresh = [Duration::ZERO; KEPT];
        let mut count = 0;
        for (at, latency) in self.latencies.iter().flatten() {
            if now.saturating_duration_since(*at) <= FRESH {
                fresh[count] = *latency;
                count += 1;
            }
        }
        let fresh = &mut fresh[..count];
        (count > 0).then(|| *fresh.select_nth_unstable(count / 2).1)
    }
}

fn bucket(in_flight: u32) -> usize {
    (u32::BITS - in_flight.leading_zeros()).min(BUCKETS as u32 - 1) as usize
}

impl Meter {
    fn learn(&self, in_flight: u32, latency: Duration, now: Instant) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets[bucket(in_flight)].add(latency, now);
    }

    /// The median latency with about so many in flight; of none, with as nearly as many as there are.
    fn latency(&self, in_flight: u32, now: Instant) -> Option<Duration> {
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let here = bucket(in_flight);
        (0..BUCKETS).find_map(|distance| {
            let below = here.checked_sub(distance).and_then(|at| buckets[at].median(now));
            below.or_else(|| buckets.get(here + distance)?.median(now))
        })
    }

    fn report(&self, now: Instant) -> HeaderValue {
        let in_flight = self.in_flight.load(Relaxed);
        // Of whom nothing is known yet, nothing bad is known.
        let latency = self.latency(in_flight, now).unwrap_or_default();
        let report = encode(&[("rif", f64::from(in_flight)), ("latency", latency.as_secs_f64() * 1e3)]);
        let encoded = BinaryMetadataValue::from_bytes(&report);
        // Base64 is valid in a header; this is unreachable, and an empty value is no report.
        HeaderValue::from_bytes(encoded.as_encoded_bytes()).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

/// An `OrcaLoadReport` with those `named_metrics` (number 8, a map from string to double). Names are short: one byte has the length.
fn encode(metrics: &[(&str, f64)]) -> Vec<u8> {
    let mut report = Vec::new();
    for (name, value) in metrics {
        let mut entry = vec![1 << 3 | 2, name.len() as u8];
        entry.extend(name.as_bytes());
        entry.push(2 << 3 | 1);
        entry.extend(value.to_le_bytes());
        report.extend([8 << 3 | 2, entry.len() as u8]);
        report.extend(entry);
    }
    report
}

/// A service that reports.
#[derive(Debug, Clone)]
pub(super) struct Reports<S> {
    inner: S,
    meter: Arc<Meter>,
}

impl<S> Reports<S> {
    pub(super) fn new(inner: S) -> Self {
        Self {
            inner,
            meter: Arc::default(),
        }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for Reports<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>, Error = Infallible>,
    ResBody: Body<Data = Bytes, Error = Status>,
{
    type Response = Response<ReportsBody<ResBody>>;
    type Error = Infallible;
    type Future = ReportsFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        let asks = request.headers().contains_key(ASK);
        if asks && !self.meter.is_asked.load(Relaxed) {
            self.meter.is_asked.store(true, Relaxed);
        }
        let is_work = !telemetry::rpc::is_infrastructure(telemetry::rpc::method_of(request.uri().path()));
        ReportsFuture {
            call: Some(Call {
                counted: is_work.then(|| Counted::new(Arc::clone(&self.meter))),
                asked: asks.then(|| Arc::clone(&self.meter)),
            }),
            inner: self.inner.call(request),
        }
    }
}

/// A call, and what is to be done at its end.
struct Call {
    counted: Option<Counted>,
    /// By whom a report is awaited.
    asked: Option<Arc<Meter>>,
}

impl Call {
    /// It has ended: a report goes with these trailers if one is awaited.
    fn ends_with(mut self, trailers: &mut HeaderMap) {
        if let Some(counted) = self.counted.take() {
            counted.finish();
        }
        if let Some(meter) = self.asked {
            trailers.insert(REPORT, meter.report(Instant::now()));
        }
    }
}

/// A call in flight, until this is dropped.
struct Counted {
    meter: Arc<Meter>,
    /// How many there were when it came, itself included.
    among: u32,
    /// None while nobody asks for reports.
    began: Option<Instant>,
}

impl Counted {
    fn new(meter: Arc<Meter>) -> Self {
        let among = meter.in_flight.fetch_add(1, Relaxed) + 1;
        Self {
            began: meter.is_asked.load(Relaxed).then(Instant::now),
            meter,
            among,
        }
    }

    fn finish(self) {
        if let Some(began) = self.began {
            let now = Instant::now();
            self.meter.learn(self.among, now.saturating_duration_since(began), now);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.meter.in_flight.fetch_sub(1, Relaxed);
    }
}

pin_project! {
    /// Future of [`Reports`].
    pub(super) struct ReportsFuture<F> {
        #[pin]
        inner: F,
        call: Option<Call>,
    }
}

impl<F, B> Future for ReportsFuture<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
    B: Body<Data = Bytes, Error = Status>,
{
    type Output = Result<Response<ReportsBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(mut response) = ready!(this.inner.poll(cx));
        let mut call = this.call.take();
        // The head alone is the whole response when it carries the status.
        if response.headers().contains_key(Status::GRPC_STATUS)
            && let Some(call) = call.take()
        {
            call.ends_with(response.headers_mut());
        }
        Poll::Ready(Ok(response.map(|inner| ReportsBody { inner, call })))
    }
}

pin_project! {
    /// Response body of [`Reports`].
    pub(super) struct ReportsBody<B> {
        #[pin]
        inner: B,
        // None once it has ended.
        call: Option<Call>,
    }
}

impl<B: Body<Data = Bytes, Error = Status>> Body for ReportsBody<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        let mut polled = ready!(this.inner.poll_frame(cx));
        if let Some(Ok(frame)) = &mut polled
            && let Some(trailers) = frame.trailers_mut()
            && let Some(call) = this.call.take()
        {
            call.ends_with(trailers);
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http_body_util::{BodyExt as _, StreamBody};
    use tonic::{Code, metadata::MetadataMap};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A service that is done when it is told, with a message and trailers.
    type Answer =
        StreamBody<futures_util::stream::Iter<std::collections::vec_deque::IntoIter<Result<Frame<Bytes>, Status>>>>;

    fn answer() -> Answer {
        let mut trailers = HeaderMap::new();
        trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
        let frames = VecDeque::from([
            Ok(Frame::data(Bytes::from_static(b"hello"))),
            Ok(Frame::trailers(trailers)),
        ]);
        StreamBody::new(futures_util::stream::iter(frames))
    }

    fn request(path: &str, asks: bool) -> Request<()> {
        let mut request = Request::new(());
        *request.uri_mut() = path.parse().expect("a path");
        if asks {
            request.headers_mut().insert(ASK, HeaderValue::from_static("1"));
        }
        request
    }

    /// The report in those trailers, as its bytes.
    fn report(trailers: &HeaderMap) -> Option<Bytes> {
        let metadata = MetadataMap::from_headers(trailers.clone());
        metadata.get_bin(REPORT.as_str())?.to_bytes().ok()
    }

    fn service() -> Reports<impl Service<Request<()>, Response = Response<Answer>, Error = Infallible, Future: Unpin>> {
        Reports::new(tower::service_fn(|_: Request<()>| {
            futures_util::future::ready(Ok(Response::new(answer())))
        }))
    }

    async fn trailers<B: Body<Data = Bytes, Error = Status>>(response: Response<B>) -> HeaderMap {
        let collected = response.into_body().collect().await.expect("no error in it");
        collected.trailers().cloned().expect("trailers")
    }

    #[tokio::test]
    async fn only_who_asks_gets_a_report() {
        let mut service = service();
        let unasked = service.call(request("/s.S/M", false)).await.expect("infallible");
        assert_eq!(report(&trailers(unasked).await), None);
        let asked = service.call(request("/s.S/M", true)).await.expect("infallible");
        assert!(report(&trailers(asked).await).is_some());
    }

    #[tokio::test]
    async fn calls_count_until_they_end_or_are_dropped_and_health_checks_never() {
        let mut service = service();
        let meter = Arc::clone(&service.meter);
        let in_flight = || meter.in_flight.load(Relaxed);
        let first = service.call(request("/s.S/M", true)).await.expect("infallible");
        let second = service.call(request("/s.S/M", true));
        let health = service
            .call(request("/grpc.health.v1.Health/Check", true))
            .await
            .expect("infallible");
        assert_eq!(in_flight(), 2);
        // A client that gives up: without the guard the count would stay for ever.
        drop(second);
        assert_eq!(in_flight(), 1);
        let expected = encode(&[("rif", 1.0), ("latency", 0.0)]);
        assert_eq!(report(&trailers(health).await).as_deref(), Some(&*expected));
        trailers(first).await;
        assert_eq!(in_flight(), 0);
    }

    #[tokio::test]
    async fn a_head_that_is_the_whole_response_carries_the_report() {
        let mut service = Reports::new(tower::service_fn(|_: Request<()>| {
            let refused = Status::new(Code::PermissionDenied, "no").into_http::<()>();
            futures_util::future::ready(Ok(refused.map(|()| answer())))
        }));
        let response = service.call(request("/s.S/M", true)).await.expect("infallible");
        assert!(report(response.headers()).is_some());
        assert_eq!(service.meter.in_flight.load(Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn latency_is_the_median_of_calls_among_about_as_many() {
        let (meter, now) = (Meter::default(), Instant::now());
        assert_eq!(meter.latency(5, now), None);
        for latency in [5, 7, 100] {
            meter.learn(5, latency * MS, now);
            meter.learn(40, latency * 10 * MS, now);
        }
        assert_eq!(meter.latency(6, now), Some(7 * MS));
        assert_eq!(meter.latency(33, now), Some(70 * MS));
        // Of as many nothing is known: the nearest, fewer first.
        assert_eq!(meter.latency(1, now), Some(7 * MS));
        assert_eq!(meter.latency(100_000, now), Some(70 * MS));
        assert_eq!(meter.latency(6, now + FRESH + MS), None);
        for _ in 0..KEPT {
            meter.learn(5, 20 * MS, now);
        }
        assert_eq!(meter.latency(6, now), Some(20 * MS));
    }

    #[test]
    fn buckets_are_powers_of_two() {
        let buckets = [0, 1, 2, 3, 4, 7, 8, 32_768, u32::MAX].map(bucket);
        assert_eq!(buckets, [0, 1, 2, 2, 3, 3, 4, 16, 16]);
    }
}
