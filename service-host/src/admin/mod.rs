//! `/healthz`, `/metrics`, `/log-level` and the service's own pages over HTTP/1.1 (with TLS where the server has it), on an
//! address of their own that need not be reachable from outside.

mod log_level;

use std::{convert::Infallible, fmt, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use crate::{
    health::Health,
    listener::{Connections, Ended, Handshakes, Stop, WriteTimeout},
};

/// Scrapers and probes; more would be somebody else.
pub(crate) const MAX_CONNECTIONS: usize = 64;
/// A request here is a line and a few headers.
const MAX_HEADERS: usize = 16 << 10;

/// A page that the service brings along: JSON, made for each request.
#[derive(Clone)]
pub(crate) struct Page {
    path: &'static str,
    render: Arc<dyn Fn() -> String + Send + Sync>,
}

impl Page {
    pub(crate) fn new(path: &'static str, render: impl Fn() -> String + Send + Sync + 'static) -> Self {
        Self {
            path,
            render: Arc::new(render),
        }
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Page").field(&self.path).finish()
    }
}

/// What there is to see. Shared by all connections.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    health: Health,
    pages: Arc<[Page]>,
}

impl Shown {
    pub(crate) fn new(health: Health, pages: Vec<Page>) -> Self {
        Self {
            health,
            pages: pages.into(),
        }
    }

    fn page(&self, path: &str) -> Option<&Page> {
        self.pages.iter().find(|page| page.path == path)
    }

    /// What to try instead.
    fn hint(&self) -> String {
        let own = self.pages.iter().map(|page| format!(", {}", page.path));
        format!(
            "try /healthz, /metrics, {}{}\n",
            log_level::PATH,
            own.collect::<String>()
        )
    }
}

/// Serves admin connections. A request's headers may take `headers_timeout`, from the connection's start or the previous
/// answer on it, and so may a handshake; an answer must be taken within `write_timeout`.
pub(crate) fn connections(
    shown: Shown,
    handshakes: Option<Handshakes>,
    headers_timeout: Duration,
    write_timeout: Duration,
) -> Connections {
    Arc::new(move |socket, peer, stop| {
        let (shown, handshakes) = (shown.clone(), handshakes.clone());
        Box::pin(async move {
            let socket = WriteTimeout::new(socket, write_timeout);
            let Some(handshakes) = handshakes else {
                return serve(socket, peer, stop, shown, headers_timeout).await;
            };
            let made = tokio::select! {
                made = handshakes.make(socket, peer, Instant::now() + headers_timeout) => made,
                () = stop.gracefully.cancelled() => None,
            };
            match made {
                Some(accepted) => serve(accepted.stream, peer, stop, shown, headers_timeout).await,
                None => Ended::Closed,
            }
        })
    })
}

async fn serve<T>(io: T, peer: SocketAddr, stop: Stop, shown: Shown, headers_timeout: Duration) -> Ended
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let shown = shown.clone();
        async move { Ok::<_, Infallible>(respond(request, peer, &shown, headers_timeout).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(headers_timeout)
        .max_buf_size(MAX_HEADERS)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.gracefully.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "admin connection ended");
    }
    Ended::Closed
}

async fn respond(
    request: Request<hyper::body::Incoming>,
    peer: SocketAddr,
    shown: &Shown,
    patience: Duration,
) -> Response<Full<Bytes>> {
    let answer = match request.uri().path() {
        log_level::PATH => log_level::answer(request, peer.ip(), patience).await,
        path => {
            let accept = request.headers().get(header::ACCEPT);
            let accept = accept.and_then(|value| value.to_str().ok());
            answer(request.method(), path, accept, shown)
        }
    };
    answer.into_response()
}

/// A status, a kind of text and the text.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: String,
}

impl Answer {
    fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: body.into(),
        }
    }

    fn json(body: String) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "application/json",
            body,
        }
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.body)));
        *response.status_mut() = self.status;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        response
    }
}

fn answer(method: &Method, path: &str, accept: Option<&str>, shown: &Shown) -> Answer {
    let page = shown.page(path);
    let known = matches!(path, "/healthz" | "/metrics") || page.is_some();
    match path {
        _ if known && method != Method::GET && method != Method::HEAD => {
            Answer::text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n")
        }
        "/healthz" if shown.health.is_serving() => Answer::text(StatusCode::OK, "serving\n"),
        "/healthz" => Answer::text(StatusCode::SERVICE_UNAVAILABLE, "not serving\n"),
        "/metrics" => {
            let (content_type, body) = telemetry::metrics::encode_for(accept);
            Answer {
                status: StatusCode::OK,
                content_type,
                body,
            }
        }
        _ => match page {
            Some(page) => Answer::json((page.render)()),
            None => Answer::text(StatusCode::NOT_FOUND, shown.hint()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_methods_are_answered() {
        let health = Health::new(["a.A"]);
        let own = Page::new("/own", || "{}".to_owned());
        let shown = Shown::new(health.clone(), vec![own]);
        let check = |method: Method, path: &str, expected: u16| {
            assert_eq!(
                answer(&method, path, None, &shown).status.as_u16(),
                expected,
                "{method} {path}"
            );
        };
        check(Method::GET, "/healthz", 503);
        health.set("a.A", true);
        check(Method::GET, "/healthz", 200);
        check(Method::HEAD, "/healthz", 200);
        check(Method::POST, "/healthz", 405);
        check(Method::GET, "/metrics", 200);
        check(Method::GET, "/own", 200);
        check(Method::POST, "/own", 405);
        check(Method::GET, "/", 404);
        check(Method::GET, "/healthz/", 404);
    }
}
