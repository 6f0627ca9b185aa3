//! A gRPC client over one hyper connection, without generated code.
//!
//! Not tonic's `Channel`: that one reads the `grpc-timeout` it sends and gives up by itself with CANCELLED, so that the
//! server's answer is never seen.

use std::{
    net::SocketAddr,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{Response as HttpResponse, uri::PathAndQuery};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tonic::{Request, Response, Status, Streaming, body::Body};
use tonic_prost::ProstCodec;
use tower::Service;

use super::service::Text;

/// One connection; any generated client runs over it.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    send: http2::SendRequest<Body>,
    address: SocketAddr,
}

impl Service<http::Request<Body>> for Connection {
    type Response = HttpResponse<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, hyper::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.send.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let uri = format!("http://{}{path}", self.address).parse().expect("a URI");
        *request.uri_mut() = uri;
        Box::pin(self.send.send_request(request))
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) channel: Connection,
}

/// A request for the test service, with a `grpc-timeout` if there is one.
pub(crate) fn ask(text: &str, timeout: Option<Duration>) -> Request<Text> {
    let mut request = Request::new(Text::from(text));
    if let Some(timeout) = timeout {
        let value = telemetry::deadline::format_grpc_timeout(timeout);
        request
            .metadata_mut()
            .insert("grpc-timeout", value.parse().expect("ASCII"));
    }
    request
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.expect("listening");
        Self::over(socket, address).await
    }

    /// On a connection that was made.
    pub(crate) async fn over(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, address: SocketAddr) -> Self {
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await;
        let (send, connection) = handshake.expect("HTTP/2");
        // Ends with the last clone of `send` or with the server.
        tokio::spawn(connection);
        Self {
            channel: Connection { send, address },
        }
    }

    /// Whether its connection takes no more calls.
    pub(crate) fn is_closed(&self) -> bool {
        self.channel.send.is_closed()
    }

    pub(crate) async fn unary<M, R>(&self, path: &'static str, request: Request<M>) -> Result<Response<R>, Status>
    where
        M: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        grpc.ready().await.expect("ready");
        grpc.unary(request, PathAndQuery::from_static(path), ProstCodec::<M, R>::default())
            .await
    }

    pub(crate) async fn say(&self, request: Request<Text>) -> Result<Response<Text>, Status> {
        self.unary("/tessera.test.v1.Test/Say", request).await
    }

    pub(crate) async fn watch(&self, request: Request<Text>) -> Result<Streaming<Text>, Status> {
        let mut grpc = tonic::client::Grpc::new(self.channel.clone());
        grpc.ready().await.expect("ready");
        let path = PathAndQuery::from_static("/tessera.test.v1.Test/Watch");
        grpc.server_streaming(request, path, ProstCodec::<Text, Text>::default())
            .await
            .map(Response::into_inner)
    }
}
