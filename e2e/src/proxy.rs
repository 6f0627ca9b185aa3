//! A network between a caller and an instance that does what networks do: delays, repeats, loses answers, and is cut.
//!
//! It speaks HTTP/2 at both ends, so that it can do so to single calls. The instance is registered with the proxy's address
//! (`--advertise`). Unary calls are what it is for: a request is read to its end before it goes on.

use std::{
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, client::SendRequest, server::SendResponse};
use http::{Request, request};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What happens to calls from now on.
#[derive(Debug, Clone, Default)]
pub struct Weather {
    /// Each call waits so long before it goes on: later ones overtake earlier ones.
    pub delay: Option<Range<Duration>>,
    /// Each call is made again after so long, without anybody who asked for it.
    pub repeat: Option<Range<Duration>>,
    /// Of a thousand calls, so many are carried out and their answers lost.
    pub lost_per_mille: u32,
    /// Only calls of methods whose path ends so are delayed; all of them where it is empty.
    pub delayed: &'static str,
    /// Nothing comes through; what is under way waits until it is over.
    pub cut: bool,
}

/// What it has done so far.
#[derive(Debug, Default)]
pub struct Done {
    /// Calls that came.
    pub calls: AtomicU64,
    /// Calls that were made again.
    pub repeated: AtomicU64,
    /// Answers that were lost.
    pub lost: AtomicU64,
}

/// A running proxy. It ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens, `host:port`.
    pub address: String,
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Inner {
    weather: watch::Sender<Weather>,
    instance: Mutex<String>,
    connection: tokio::sync::Mutex<Option<SendRequest<Bytes>>>,
    done: Done,
}

/// An answer that was read to its end.
struct Answer {
    head: http::Response<()>,
    body: Bytes,
    trailers: Option<http::HeaderMap>,
}

/// Why there is no answer.
enum NoAnswer {
    /// The call was never sent.
    NotSent,
    /// It may have been carried out.
    Lost,
}

impl Proxy {
    /// Listens, for an instance that is yet to be started: see [`Proxy::lead_to`].
    pub async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let inner = Arc::new(Inner {
            weather: watch::Sender::default(),
            instance: Mutex::default(),
            connection: tokio::sync::Mutex::default(),
            done: Done::default(),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&inner)));
        Self { address, inner, task }
    }

    /// Where the calls go.
    pub fn lead_to(&self, instance: &str) {
        let mut known = self.inner.instance.lock().unwrap_or_else(PoisonError::into_inner);
        instance.clone_into(&mut known);
    }

    /// Changes what happens to calls.
    pub fn set(&self, weather: Weather) {
        self.inner.weather.send_replace(weather);
    }

    /// What it has done so far.
    pub fn done(&self) -> &Done {
        &self.inner.done
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, inner: Arc<Inner>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(serve(stream, Arc::clone(&inner)));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, inner: Arc<Inner>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    let mut calls = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            call = connection.accept() => match call {
                Some(Ok((request, respond))) => drop(calls.spawn(one_call(request, respond, Arc::clone(&inner)))),
                Some(Err(_)) | None => break,
            },
            Some(_) = calls.join_next() => {}
        }
    }
    // Whoever asked is gone; what they asked for is not: a network delivers what it has taken.
    calls.detach_all();
}

async fn one_call(request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>, inner: Arc<Inner>) {
    let (head, mut stream) = request.into_parts();
    let Ok((body, _)) = read(&mut stream).await else {
        return;
    };
    inner.done.calls.fetch_add(1, Ordering::Relaxed);
    let weather = inner.weather.borrow().clone();
    if let Some(after) = weather.repeat {
        let (inner, head, body) = (Arc::clone(&inner), head.clone(), body.clone());
        tokio::spawn(async move {
            tokio::time::sleep(rand::random_range(after)).await;
            inner.done.repeated.fetch_add(1, Ordering::Relaxed);
            // Nobody asked for it: nobody is told.
            let _ = forward(&inner, head, body).await;
        });
    }
    if let Some(delay) = weather.delay.filter(|_| head.uri.path().ends_with(weather.delayed)) {
        tokio::time::sleep(rand::random_range(delay)).await;
    }
    // Only fails when the proxy is gone.
    let _ = inner.weather.subscribe().wait_for(|weather| !weather.cut).await;
    let answer = forward(&inner, head, body).await;
    let _ = inner.weather.subscribe().wait_for(|weather| !weather.cut).await;
    match answer {
        Ok(_) if rand::random_range(0..1_000) < weather.lost_per_mille => {
            inner.done.lost.fetch_add(1, Ordering::Relaxed);
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
        Ok(answer) => tell(answer, respond),
        Err(NoAnswer::NotSent) => respond.send_reset(Reason::REFUSED_STREAM),
        Err(NoAnswer::Lost) => respond.send_reset(Reason::INTERNAL_ERROR),
    }
}

async fn forward(inner: &Inner, mut head: request::Parts, body: Bytes) -> Result<Answer, NoAnswer> {
    let sender = connect(inner).await.map_err(|_| NoAnswer::NotSent)?;
    let mut sender = sender.ready().await.map_err(|_| NoAnswer::NotSent)?;
    // The connection's own.
    head.headers.remove(http::header::CONTENT_LENGTH);
    let request = Request::from_parts(head, ());
    let (answer, mut stream) = sender.send_request(request, false).map_err(|_| NoAnswer::NotSent)?;
    stream.send_data(body, true).map_err(|_| NoAnswer::Lost)?;
    let answer = answer.await.map_err(|_| NoAnswer::Lost)?;
    let (head, mut stream) = answer.into_parts();
    let (body, trailers) = read(&mut stream).await.map_err(|_| NoAnswer::Lost)?;
    Ok(Answer {
        head: http::Response::from_parts(head, ()),
        body,
        trailers,
    })
}

/// The connection to the instance; a new one where the last one has ended.
async fn connect(inner: &Inner) -> Result<SendRequest<Bytes>, Box<dyn std::error::Error + Send + Sync>> {
    let mut known = inner.connection.lock().await;
    if let Some(sender) = known.take()
        && let Ok(sender) = sender.ready().await
    {
        *known = Some(sender.clone());
        return Ok(sender);
    }
    let address = inner.instance.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let (sender, connection) = h2::client::handshake(TcpStream::connect(address).await?).await?;
    // It ends with the instance, or when the last sender is dropped.
    tokio::spawn(connection);
    *known = Some(sender.clone());
    Ok(sender)
}

async fn read(stream: &mut h2::RecvStream) -> Result<(Bytes, Option<http::HeaderMap>), h2::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk?;
        stream.flow_control().release_capacity(chunk.len())?;
        body.extend_from_slice(&chunk);
    }
    Ok((body.into(), stream.trailers().await?))
}

fn tell(answer: Answer, mut respond: SendResponse<Bytes>) {
    let only_head = answer.body.is_empty() && answer.trailers.is_none();
    // Whoever asked may have gone meanwhile.
    let Ok(mut stream) = respond.send_response(answer.head, only_head) else {
        return;
    };
    if !only_head {
        let _ = stream.send_data(answer.body, answer.trailers.is_none());
        if let Some(trailers) = answer.trailers {
            let _ = stream.send_trailers(trailers);
        }
    }
}
