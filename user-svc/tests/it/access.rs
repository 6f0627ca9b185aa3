//! Every RPC as everybody: nobody, another buyer, the owner, an organiser, an operator, a service, and with tokens that are no good.
//!
//! The walk is over the descriptor set: an RPC without a row here fails, whoever adds it decides who may call it.

use std::{collections::BTreeSet, time::Duration};

use prost::Message as _;
use proto::events::v1::{
    DropDeadLetterRequest, GetDeadLetterRequest, ListDeadLettersRequest, ReplayDeadLettersRequest,
    events_service_client::EventsServiceClient,
};
use proto::user::v1::{
    CreateUserRequest, DeleteUserRequest, GetOrderRequest, GetSigningKeysRequest, GetUserRequest, ListOrdersRequest,
    ListSessionsRequest, ListStatementRequest, RefreshSessionRequest, RefundOrderRequest, RevokeSessionsRequest, Role,
    SetRolesRequest, SignInRequest, SignInResponse, SignOutRequest, TopUpRequest, UpdateProfileRequest, User,
    WatchOrderRequest,
};
use registry_client::Bearer;
use tonic::{Code, Status, service::interceptor::InterceptedService, transport::Channel};
use user_svc::Users;

use crate::fixture::{
    Client, Fixture, OPERATOR, PASSWORD, config, connect_as, euro, id, new_user, reason, sign_in, two_seats,
};

/// Whoever calls, in the order of the columns below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Nobody,
    Another,
    Owner,
    Organiser,
    Operator,
    /// The user service itself, with what it shows to the ticket service.
    Service,
    Expired,
    /// A token of another key.
    Forged,
    /// The owner's, with a claim changed.
    Bent,
    /// The owner's, of a session that was revoked.
    Revoked,
}

const ALL: [Who; 10] = [
    Who::Nobody,
    Who::Another,
    Who::Owner,
    Who::Organiser,
    Who::Operator,
    Who::Service,
    Who::Expired,
    Who::Forged,
    Who::Bent,
    Who::Revoked,
];

/// What they are answered: `.` goes on, `u` UNAUTHENTICATED, `p` PERMISSION_DENIED, `n` NOT_FOUND.
const TABLE: &[(&str, &str)] = &[
    //                   nobody another owner organiser operator service expired forged bent revoked
    ("BuyTicket", "up.p.uuuuu"),
    ("CreateUser", ".........."),
    ("DeleteUser", "up.p.uuuuu"),
    ("GetOrder", "un.n.uuuuu"),
    ("GetSigningKeys", ".........."),
    ("GetUser", "up.p.uuuuu"),
    ("ListOrders", "up.p.uuuuu"),
    ("ListSessions", "up.p.uuuuu"),
    ("ListStatement", "up.p.uuuuu"),
    ("RefreshSession", ".........."),
    ("RefundOrder", "un.n.uuuuu"),
    ("RevokeSessions", "up.p.uuuuu"),
    ("SetRoles", "uppp.uuuup"),
    ("SignIn", ".........."),
    ("SignOut", "u....uuuuu"),
    ("TopUp", "up.p.uuuuu"),
    ("UpdateProfile", "up.p.uuuuu"),
    ("WatchOrder", "un.n.uuuuu"),
];

/// What they may do with dead letters, which is the same for all RPCs of it.
const EVENTS: &[(&str, &str)] = &[
    //                   nobody another owner organiser operator service expired forged bent revoked
    ("DropDeadLetter", "uppp.uuuup"),
    ("GetDeadLetter", "uppp.uuuup"),
    ("ListDeadLetters", "uppp.uuuup"),
    ("ReplayDeadLetters", "uppp.uuuup"),
];

type Events = EventsServiceClient<InterceptedService<Channel, Bearer>>;

#[tokio::test]
async fn every_rpc_answers_everybody_as_the_table_says() {
    let cast = Cast::assemble().await;
    let set = prost_types::FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).expect("decodes");
    let files = set.file.iter().filter(|file| file.package() == "tessera.user.v1");
    let methods = files.flat_map(|file| &file.service).flat_map(|service| &service.method);
    let described: BTreeSet<&str> = methods.map(|method| method.name()).collect();
    let expected: BTreeSet<&str> = TABLE.iter().map(|(method, _)| *method).collect();
    assert_eq!(described, expected, "a row for each RPC, and none for others");

    for (method, row) in TABLE {
        assert_eq!(row.len(), ALL.len(), "{method}");
        for (who, expected) in ALL.into_iter().zip(row.chars()) {
            let owned = cast.owned().await;
            let client = cast.client(who, &owned).await;
            let got = match call(method, client, &owned).await {
                Ok(()) => '.',
                Err(status) => {
                    // Always with a reason.
                    reason(&status);
                    match status.code() {
                        Code::Unauthenticated => 'u',
                        Code::PermissionDenied => 'p',
                        Code::NotFound => 'n',
                        _ => panic!("{method} as {who:?}: {status:?}"),
                    }
                }
            };
            assert_eq!(got, expected, "{method} as {who:?}");
        }
    }
    cast.fixture.stop().await;
}

#[tokio::test]
async fn dead_letters_are_for_operators() {
    let cast = Cast::assemble().await;
    let set = prost_types::FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).expect("decodes");
    let files = set.file.iter().filter(|file| file.package() == "tessera.events.v1");
    let methods = files.flat_map(|file| &file.service).flat_map(|service| &service.method);
    let described: BTreeSet<&str> = methods.map(|method| method.name()).collect();
    let expected: BTreeSet<&str> = EVENTS.iter().map(|(method, _)| *method).collect();
    assert_eq!(described, expected, "a row for each RPC, and none for others");
    let owned = cast.owned().await;
    let address = cast.fixture.server.local_addr();
    let channel = Channel::from_shared(format!("http://{address}")).expect("an address");
    let channel = channel.connect().await.expect("it listens");
    let as_whom = |token: Option<&str>| {
        let token = token.map(|token| token.parse().expect("a token"));
        EventsServiceClient::with_interceptor(channel.clone(), Bearer::new(token))
    };
    for who in ALL {
        let token = cast.token(who, &owned).await;
        for (method, row) in EVENTS {
            let place = ALL.iter().position(|one| *one == who).expect("one of them");
            let expected = row.chars().nth(place).expect("a column");
            let got = match call_events(method, as_whom(token.as_deref())).await {
                // Of an event that there is not: the gate has let it through.
                Ok(()) => '.',
                Err(status) if status.code() == Code::NotFound => '.',
                Err(status) => {
                    reason(&status);
                    match status.code() {
                        Code::Unauthenticated => 'u',
                        Code::PermissionDenied => 'p',
                        _ => panic!("{method} as {who:?}: {status:?}"),
                    }
                }
            };
            assert_eq!(got, expected, "{method} as {who:?}");
        }
    }
    // An operator who has signed out is nobody, also while the token is good.
    let session = sign_in(&cast.fixture.server, OPERATOR).await.session_token;
    let mut own = connect_as(&cast.fixture.server, Some(&session)).await;
    own.sign_out(SignOutRequest {}).await.expect("signed out");
    let late = call_events("ListDeadLetters", as_whom(Some(&session))).await;
    assert_eq!(reason(&late.expect_err("signed out")), "SESSION_ENDED");
    cast.fixture.stop().await;
}

async fn call_events(method: &str, mut client: Events) -> Result<(), Status> {
    let event_id = id();
    match method {
        "DropDeadLetter" => {
            let reason = "why".to_owned();
            client
                .drop_dead_letter(DropDeadLetterRequest { event_id, reason })
                .await
                .map(drop)
        }
        "GetDeadLetter" => client
            .get_dead_letter(GetDeadLetterRequest { event_id })
            .await
            .map(drop),
        "ListDeadLetters" => client
            .list_dead_letters(ListDeadLettersRequest::default())
            .await
            .map(drop),
        "ReplayDeadLetters" => {
            let (event_ids, all) = (Vec::new(), true);
            client
                .replay_dead_letters(ReplayDeadLettersRequest { event_ids, all })
                .await
                .map(drop)
        }
        method => panic!("say here how {method} is called"),
    }
}

/// Paths that are nearly a method, or one of somebody else, are no way round the table.
#[tokio::test]
async fn what_is_not_in_the_table_is_refused() {
    let fixture = Fixture::start().await;
    for path in [
        "/tessera.user.v1.UserService/GetUsers",
        "/tessera.user.v1.UserService/getuser",
        "/tessera.user.v1.UserService/GetUser/",
        "//tessera.user.v1.UserService/GetUser",
        "/tessera.ticket.v1.TicketService/HoldSeats",
    ] {
        let channel = tonic::transport::Channel::from_shared(format!("http://{}", fixture.server.local_addr()));
        let channel = channel.expect("an address").connect().await.expect("it listens");
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.expect("it is");
        let codec = tonic_prost::ProstCodec::<GetUserRequest, GetUserRequest>::default();
        let path = http::uri::PathAndQuery::from_static(path);
        let answer = client
            .unary(tonic::Request::new(GetUserRequest::default()), path.clone(), codec)
            .await;
        assert_eq!(
            answer.expect_err("no such method").code(),
            Code::Unimplemented,
            "{path}"
        );
    }
    fixture.stop().await;
}

/// The ticket service must be able to tell who asks it.
#[tokio::test]
async fn what_it_asks_of_the_ticket_service_shows_who_asks() {
    let fixture = Fixture::start().await;
    let user = fixture.user_with(10_000).await;
    fixture.buy(two_seats(&user)).await;
    let answer = fixture.client.clone().get_signing_keys(GetSigningKeysRequest {}).await;
    let answer = answer.expect("public").into_inner();
    let keys = answer.keys.iter().map(|key| {
        let public = identity::PublicKey::from_bytes(&key.public_key).expect("a key");
        assert_eq!(public.kid().as_str(), key.key_id);
        public
    });
    let verifier = identity::Verifier::new(&answer.issuer, ["ticket-svc"], identity::KeySet::new(keys));
    let shown = fixture.tickets.shown();
    assert!(shown.len() >= 2, "held and confirmed");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    for header in shown {
        let header = header.expect("every call shows it");
        let token = header.strip_prefix("Bearer ").expect("a bearer token");
        let claims = verifier
            .verify(token, now.clone().expect("after 1970").as_secs())
            .expect("good");
        assert_eq!(claims.subject, identity::Subject::Service("user-svc".into()));
        assert_eq!(claims.roles, identity::Roles::SERVICE);
    }
    fixture.stop().await;
}

struct Cast {
    fixture: Fixture,
    another: User,
    organiser: User,
    /// Of the same store; its tokens have expired when they are given out.
    hasty: user_svc::Running,
}

/// What is called about: an account with a session and an order.
struct Owned {
    user: User,
    session: SignInResponse,
    order_id: String,
}

impl Cast {
    async fn assemble() -> Self {
        let fixture = Fixture::start().await;
        let (another, organiser) = (fixture.user_with(0).await, fixture.user_with(0).await);
        let request = SetRolesRequest {
            user_id: organiser.id.clone(),
            roles: vec![Role::Organiser.into()],
        };
        fixture
            .client
            .clone()
            .set_roles(request)
            .await
            .expect("an operator may");
        let mut hasty = config(&fixture.folder, &fixture.tickets);
        hasty.token_lifetime = Duration::ZERO;
        let hasty = Users::start(hasty).await.expect("it starts");
        Self {
            fixture,
            another,
            organiser,
            hasty,
        }
    }

    async fn owned(&self) -> Owned {
        let user = self.fixture.user_with(0).await;
        let order = self.fixture.buy(two_seats(&user)).await;
        Owned {
            session: sign_in(&self.fixture.server, &user.email).await,
            user,
            order_id: order.id,
        }
    }

    async fn client(&self, who: Who, owned: &Owned) -> Client {
        connect_as(&self.fixture.server, self.token(who, owned).await.as_deref()).await
    }

    async fn token(&self, who: Who, owned: &Owned) -> Option<String> {
        let server = &self.fixture.server;
        let session_of = |email: &str| {
            let email = email.to_owned();
            async move { sign_in(server, &email).await.session_token }
        };
        match who {
            Who::Nobody => None,
            Who::Another => Some(session_of(&self.another.email).await),
            Who::Owner => Some(owned.session.session_token.clone()),
            Who::Organiser => Some(session_of(&self.organiser.email).await),
            Who::Operator => Some(session_of(OPERATOR).await),
            Who::Service => {
                let shown = self.fixture.tickets.shown();
                let header = shown.into_iter().flatten().next_back().expect("it has called");
                header.strip_prefix("Bearer ").map(str::to_owned)
            }
            Who::Expired => Some(sign_in(&self.hasty, &owned.user.email).await.session_token),
            Who::Forged => Some(forged(&owned.session.session_token)),
            Who::Bent => Some(bent(&owned.session.session_token)),
            Who::Revoked => {
                let session = sign_in(server, &owned.user.email).await;
                let request = RevokeSessionsRequest {
                    user_id: owned.user.id.clone(),
                    session_ids: vec![session.session_id.clone()],
                };
                let mut own = connect_as(server, Some(&owned.session.session_token)).await;
                assert_eq!(own.revoke_sessions(request).await.expect("own").into_inner().revoked, 1);
                Some(session.session_token)
            }
        }
    }
}

/// What the token says, signed by somebody else.
fn forged(token: &str) -> String {
    let mut parts = token.rsplitn(2, '.');
    let (_, said) = (parts.next(), parts.next().expect("signed"));
    let body = said.split('.').nth(1).expect("a body");
    let key = identity::KeyPair::generate().expect("a key");
    // Under a name that is nobody's: the body is what counts.
    let claims = identity::Claims {
        issuer: identity::ISSUER.into(),
        subject: identity::Subject::Service("x".into()),
        roles: identity::Roles::SERVICE,
        audience: identity::PLATFORM.into(),
        issued_at: 0,
        expires_at: u64::MAX,
    };
    let own = claims.sign(&key);
    let header = own.expose().split('.').next().expect("a header").to_owned();
    let input = format!("{header}.{body}");
    let signature = key.sign(input.as_bytes());
    format!(
        "{input}.{}",
        base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, signature)
    )
}

/// The token with one character of its claims changed, and the signature as it was.
fn bent(token: &str) -> String {
    let at = token.find('.').expect("a header") + 20;
    let mut bytes = token.as_bytes().to_vec();
    bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
    String::from_utf8(bytes).expect("ASCII")
}

async fn call(method: &str, mut client: Client, owned: &Owned) -> Result<(), Status> {
    let (user_id, order_id) = (owned.user.id.clone(), owned.order_id.clone());
    match method {
        "BuyTicket" => client.buy_ticket(two_seats(&owned.user)).await.map(drop),
        "CreateUser" => client.create_user(CreateUserRequest { ..new_user() }).await.map(drop),
        "DeleteUser" => {
            let request = DeleteUserRequest {
                user_id,
                password: PASSWORD.into(),
                forfeit_balance: false,
            };
            client.delete_user(request).await.map(drop)
        }
        "GetOrder" => client.get_order(GetOrderRequest { order_id }).await.map(drop),
        "GetSigningKeys" => client.get_signing_keys(GetSigningKeysRequest {}).await.map(drop),
        "GetUser" => client.get_user(GetUserRequest { user_id }).await.map(drop),
        "ListOrders" => {
            let request = ListOrdersRequest {
                user_id,
                ..ListOrdersRequest::default()
            };
            client.list_orders(request).await.map(drop)
        }
        "ListStatement" => {
            let request = ListStatementRequest {
                user_id,
                ..ListStatementRequest::default()
            };
            client.list_statement(request).await.map(drop)
        }
        "ListSessions" => client.list_sessions(ListSessionsRequest { user_id }).await.map(drop),
        "RefreshSession" => {
            let refresh_token = owned.session.refresh_token.clone();
            client
                .refresh_session(RefreshSessionRequest { refresh_token })
                .await
                .map(drop)
        }
        "RefundOrder" => {
            let request = RefundOrderRequest {
                request_id: id(),
                order_id,
            };
            // The order has failed for want of money; who may ask hears so.
            match client.refund_order(request).await {
                Err(status) if status.code() == Code::FailedPrecondition => {
                    assert_eq!(reason(&status), "ORDER_NOT_REFUNDABLE");
                    Ok(())
                }
                answer => answer.map(drop),
            }
        }
        "RevokeSessions" => {
            let request = RevokeSessionsRequest {
                user_id,
                session_ids: Vec::new(),
            };
            client.revoke_sessions(request).await.map(drop)
        }
        "SetRoles" => {
            let request = SetRolesRequest {
                user_id,
                roles: vec![Role::Buyer.into(), Role::Organiser.into()],
            };
            client.set_roles(request).await.map(drop)
        }
        "SignIn" => {
            let request = SignInRequest {
                email: owned.user.email.clone(),
                password: PASSWORD.into(),
            };
            client.sign_in(request).await.map(drop)
        }
        "SignOut" => client.sign_out(SignOutRequest {}).await.map(drop),
        "TopUp" => {
            let request = TopUpRequest {
                request_id: id(),
                user_id,
                amount: euro(1),
            };
            client.top_up(request).await.map(drop)
        }
        "UpdateProfile" => {
            let request = UpdateProfileRequest {
                user_id,
                display_name: "Grace".into(),
                ..UpdateProfileRequest::default()
            };
            client.update_profile(request).await.map(drop)
        }
        "WatchOrder" => client.watch_order(WatchOrderRequest { order_id }).await.map(drop),
        method => panic!("say here how {method} is called"),
    }
}
