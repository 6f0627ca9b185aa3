//! Calls to an etcd cluster: one member at a time, the next one when it does not answer.
//!
//! A connection whose peer fell silent is given up with the call that noticed it: a packet that was lost in a partition would
//! otherwise keep it waiting, by TCP's growing pauses, long after the partition has healed. Whether a call is repeated is its
//! caller's decision; after [`Failure::Away`] a write may or may not have happened.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use prost::Message;
use tokio::time::{Instant, timeout};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::{
    dial::Dialer,
    failure::{Failure, chain, wants_a_token},
    url::{Credentials, EtcdUrl},
    wire::{
        self, AuthenticateRequest, AuthenticateResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveResponse,
        LeaseRequest, LeaseRevokeResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse, WatchCreate,
        WatchRequest, WatchResponse,
    },
};

/// How long a call may take, unless it says otherwise. etcd itself answers one that it cannot commit after 5 s and two elections.
pub(super) const CALL: Duration = Duration::from_secs(2);
/// How long a connection may take, with its TLS handshake.
pub(super) const CONNECT: Duration = Duration::from_secs(1);
/// Above what a page of 64 values of 512 KiB can be.
const RESPONSE_BYTES: usize = 64 * 1024 * 1024;

/// See the module.
pub(super) struct Client {
    members: Vec<Endpoint>,
    dialer: Dialer,
    credentials: Option<Credentials>,
    state: Mutex<State>,
}

struct State {
    /// Index of the member that is asked, and how often it was changed.
    member: usize,
    generation: u64,
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
    answered: Option<Instant>,
}

/// To one member, and what to tell it.
#[derive(Clone)]
struct Connection {
    generation: u64,
    channel: Channel,
    token: Option<MetadataValue<Ascii>>,
}

/// One try, boxed: with it, futures that hold a call can be seen to be `Send`.
type Asked<T> = BoxFuture<'static, Result<T, Status>>;

impl Client {
    /// Dials nothing yet; with `tls` what is `etcds://`. Within a runtime.
    pub(super) fn new(url: &EtcdUrl, tls: Option<&tls::Client>) -> Result<Self, String> {
        let (scheme, dialer) = match (url.is_secured, tls) {
            (false, _) => ("http", Dialer::plain()),
            (true, Some(tls)) => ("https", Dialer::secured(tls.clone())),
            (true, None) => {
                return Err(
                    "there is no CA bundle to verify etcd's certificate with; pass the authority that issued it as --store-ca".to_owned(),
                );
            }
        };
        let members = url
            .members
            .iter()
            .map(|member| {
                let endpoint =
                    Endpoint::from_shared(format!("{scheme}://{member}")).map_err(|error| error.to_string())?;
                Ok(endpoint.connect_timeout(CONNECT).tcp_nodelay(true))
            })
            .collect::<Result<Vec<_>, String>>()?;
        let first = members.first().ok_or("no member is named")?;
        let channel = first.connect_with_connector_lazy(dialer.clone());
        Ok(Self {
            members,
            dialer,
            credentials: url.credentials.clone(),
            state: Mutex::new(State {
                member: 0,
                generation: 0,
                channel,
                token: None,
                answered: None,
            }),
        })
    }

    /// Performs a transaction.
    pub(super) async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Failure> {
        self.call(wire::TXN, request, CALL).await
    }

    /// The same within another time.
    pub(super) async fn txn_within(&self, request: TxnRequest, limit: Duration) -> Result<TxnResponse, Failure> {
        self.call(wire::TXN, request, limit).await
    }

    /// Reads keys, within a time that fits how many they are.
    pub(super) async fn range(&self, request: RangeRequest, limit: Duration) -> Result<RangeResponse, Failure> {
        self.call(wire::RANGE, request, limit).await
    }

    /// When etcd has last answered anything.
    pub(super) fn answered(&self) -> Option<Instant> {
        self.state().answered
    }

    /// Whether it looks as if etcd spoke TLS and we do not.
    pub(super) fn is_wordless(&self) -> bool {
        self.dialer.is_wordless()
    }

    /// A new etcd lease.
    pub(super) async fn grant(&self, ttl: Duration) -> Result<i64, Failure> {
        let ttl = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let response: LeaseGrantResponse = self.call(wire::LEASE_GRANT, LeaseGrantRequest { ttl }, CALL).await?;
        Ok(response.id)
    }

    /// Ends an etcd lease and its keys.
    pub(super) async fn revoke(&self, id: i64) -> Result<(), Failure> {
        let LeaseRevokeResponse {} = self.call(wire::LEASE_REVOKE, LeaseRequest { id }, CALL).await?;
        Ok(())
    }

    /// Prolongs an etcd lease once. `false`: it has ended.
    pub(super) async fn keep_alive(&self, id: i64) -> Result<bool, Failure> {
        let ask = move |connection: Connection| {
            let ask = async move {
                let requests = tokio_stream::once(LeaseRequest { id });
                let mut answers: Streaming<LeaseKeepAliveResponse> =
                    connection.stream(wire::LEASE_KEEP_ALIVE, requests).await?;
                let none = || Status::unavailable("no answer to a keep-alive");
                answers.message().await?.ok_or_else(none)
            };
            ask.boxed()
        };
        Ok(self.within(CALL, ask).await?.ttl > 0)
    }

    /// Watches puts, and says of which generation of the connection that is, for [`Client::turn_from`]. What comes is not bounded
    /// in time: silence is not an error.
    pub(super) async fn watch(
        &self,
        create: WatchCreate,
    ) -> Result<
        (
            u64,
            impl Stream<Item = Result<WatchResponse, Status>> + Send + Unpin + use<>,
        ),
        Failure,
    > {
        let open = |connection: Connection| {
            let create = create.clone();
            let open = async move {
                let generation = connection.generation;
                // The stream of requests stays open as long as the watch; one that ended would end the other.
                let (requests, outbox) = tokio::sync::mpsc::channel(1);
                let request = WatchRequest { create: Some(create) };
                requests
                    .send(request)
                    .await
                    .map_err(|_| Status::internal("the watch has no reader"))?;
                let answers: Streaming<WatchResponse> =
                    connection.stream(wire::WATCH, ReceiverStream::new(outbox)).await?;
                let answers = answers.map(move |answer| {
                    let _open = &requests;
                    answer
                });
                Ok((generation, answers))
            };
            open.boxed()
        };
        self.within(CALL, open).await
    }

    /// Makes etcd forget its own history before a revision, as an operator's schedule does.
    #[cfg(test)]
    pub(super) async fn compact(&self, revision: i64) -> Result<(), Failure> {
        let wire::CompactResponse {} = self
            .call(wire::COMPACT, wire::CompactRequest { revision }, CALL)
            .await?;
        Ok(())
    }

    /// The next call goes to the next member, over a new connection; unless another call has noticed as well that this one is
    /// of no use.
    pub(super) fn turn_from(&self, generation: u64) {
        let mut state = self.state();
        if state.generation == generation {
            state.generation += 1;
            state.member = (state.member + 1) % self.members.len();
            state.channel = self.members[state.member].connect_with_connector_lazy(self.dialer.clone());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call<Q, A>(&self, path: &'static str, request: Q, limit: Duration) -> Result<A, Failure>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let ask = |connection: Connection| {
            let request = request.clone();
            async move { connection.unary(path, request).await }.boxed()
        };
        self.within(limit, ask).await
    }

    /// One try, two if etcd wants us to authenticate first.
    async fn within<T>(&self, limit: Duration, ask: impl Fn(Connection) -> Asked<T>) -> Result<T, Failure> {
        for authenticated in [false, true] {
            let connection = self.connection();
            let generation = connection.generation;
            let status = match timeout(limit, ask(connection)).await {
                Ok(Ok(answer)) => {
                    self.state().answered = Some(Instant::now());
                    return Ok(answer);
                }
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded(format!("no answer within {limit:?}")),
            };
            if !authenticated && self.credentials.is_some() && wants_a_token(&status) {
                self.authenticate().await?;
                continue;
            }
            let failure = Failure::of(&status);
            if matches!(failure, Failure::Away(_)) {
                self.turn_from(generation);
            }
            return Err(failure);
        }
        Err(Failure::Denied("etcd takes no token of ours".to_owned()))
    }

    fn connection(&self) -> Connection {
        let state = self.state();
        Connection {
            generation: state.generation,
            channel: state.channel.clone(),
            token: state.token.clone(),
        }
    }

    async fn authenticate(&self) -> Result<(), Failure> {
        let Some(Credentials { user, password }) = self.credentials.clone() else {
            return Err(Failure::Denied("etcd wants a user and a password".to_owned()));
        };
        let mut connection = self.connection();
        // An old token would be refused before the new one is made.
        connection.token = None;
        let request = AuthenticateRequest { name: user, password };
        let answer: Result<AuthenticateResponse, Status> = timeout(CALL, connection.unary(wire::AUTHENTICATE, request))
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer to the password")));
        let token = answer.map_err(|status| Failure::of(&status))?.token;
        let mut token: MetadataValue<Ascii> = token
            .parse()
            .map_err(|_| Failure::Denied("etcd's token is none".to_owned()))?;
        token.set_sensitive(true);
        self.state().token = Some(token);
        Ok(())
    }
}

impl Connection {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        // A member without a leader refuses at once instead of keeping us waiting.
        metadata.insert("hasleader", MetadataValue::from_static("true"));
        if let Some(token) = &self.token {
            metadata.insert("token", token.clone());
        }
        request
    }

    async fn grpc(&self) -> Result<Grpc<Channel>, Status> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(RESPONSE_BYTES);
        grpc.ready().await.map_err(|error| Status::unavailable(chain(&error)))?;
        Ok(grpc)
    }

    async fn unary<Q, A>(&self, path: &'static str, message: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let codec = ProstCodec::<Q, A>::default();
        let path = PathAndQuery::from_static(path);
        let answer = self.grpc().await?.unary(self.request(message), path, codec).await?;
        Ok(answer.into_inner())
    }

    async fn stream<Q, A>(
        &self,
        path: &'static str,
        messages: impl Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let codec = ProstCodec::<Q, A>::default();
        let path = PathAndQuery::from_static(path);
        let answer = self
            .grpc()
            .await?
            .streaming(self.request(messages), path, codec)
            .await?;
        Ok(answer.into_inner())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members: Vec<_> = self.members.iter().map(|member| member.uri().to_string()).collect();
        f.debug_struct("Client")
            .field("members", &members)
            .finish_non_exhaustive()
    }
}
