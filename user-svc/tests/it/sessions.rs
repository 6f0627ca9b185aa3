//! Sessions through the wire: signing in and out, renewal, what becomes of a stolen refresh token, and wrong passwords.

use std::time::Duration;

use proto::user::v1::{
    GetSigningKeysRequest, GetUserRequest, ListSessionsRequest, RefreshSessionRequest, RefreshSessionResponse,
    RevokeSessionsRequest, SetRolesRequest, SignInRequest, SignOutRequest,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use user_svc::Users;

use crate::fixture::{Client, Fixture, PASSWORD, config, connect_as, new_user, reason, sign_in};

async fn refresh(client: &Client, refresh_token: &str) -> Result<RefreshSessionResponse, Status> {
    let request = RefreshSessionRequest {
        refresh_token: refresh_token.to_owned(),
    };
    client
        .clone()
        .refresh_session(request)
        .await
        .map(tonic::Response::into_inner)
}

async fn who_am_i(fixture: &Fixture, token: &str, user_id: &str) -> Result<(), Status> {
    let request = GetUserRequest {
        user_id: user_id.to_owned(),
    };
    connect_as(&fixture.server, Some(token))
        .await
        .get_user(request)
        .await
        .map(drop)
}

#[tokio::test]
async fn a_session_is_renewed_and_what_was_shown_is_used_up() {
    let fixture = Fixture::start().await;
    let user = fixture.user_with(0).await;
    let session = sign_in(&fixture.server, &user.email).await;
    who_am_i(&fixture, &session.session_token, &user.id)
        .await
        .expect("good");
    let nobody = connect_as(&fixture.server, None).await;
    let renewed = refresh(&nobody, &session.refresh_token).await.expect("good once");
    assert_eq!(renewed.user.as_ref().map(|user| &user.id), Some(&user.id));
    assert_ne!(renewed.refresh_token, session.refresh_token);
    who_am_i(&fixture, &renewed.session_token, &user.id)
        .await
        .expect("good");
    refresh(&nobody, &renewed.refresh_token)
        .await
        .expect("the next one is good too");
    fixture.stop().await;
}

/// RFC 9700, 4.14.2: a token that comes twice was copied, and nobody can tell which of the two is the thief.
#[tokio::test]
async fn a_refresh_token_that_is_used_twice_ends_its_session() {
    let fixture = Fixture::start().await;
    let user = fixture.user_with(0).await;
    let (stolen, other) = (
        sign_in(&fixture.server, &user.email).await,
        sign_in(&fixture.server, &user.email).await,
    );
    let nobody = connect_as(&fixture.server, None).await;
    let renewed = refresh(&nobody, &stolen.refresh_token).await.expect("good once");
    let status = refresh(&nobody, &stolen.refresh_token).await.expect_err("used up");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unauthenticated, "REFRESH_TOKEN_REUSED")
    );
    for ended in [&renewed.refresh_token, &stolen.refresh_token] {
        let status = refresh(&nobody, ended).await.expect_err("ended");
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::Unauthenticated, "SESSION_ENDED")
        );
    }
    // Its access tokens as well, at once.
    let status = who_am_i(&fixture, &renewed.session_token, &user.id)
        .await
        .expect_err("ended");
    assert_eq!(reason(&status), "SESSION_ENDED");
    refresh(&nobody, &other.refresh_token)
        .await
        .expect("the other device is not concerned");
    fixture.stop().await;
}

/// A session's id is in every access token: whoever knows no more than that must not be able to end it.
#[tokio::test]
async fn a_refresh_token_that_was_made_up_ends_nothing() {
    let fixture = Fixture::start().await;
    let user = fixture.user_with(0).await;
    let session = sign_in(&fixture.server, &user.email).await;
    let nobody = connect_as(&fixture.server, None).await;
    let made_up = format!("{}{}", &session.refresh_token[..22], "A".repeat(64));
    for bad in [made_up.as_str(), "", "x", PASSWORD] {
        let status = refresh(&nobody, bad).await.expect_err("made up");
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::Unauthenticated, "SESSION_ENDED")
        );
    }
    refresh(&nobody, &session.refresh_token).await.expect("still good");
    fixture.stop().await;
}

#[tokio::test]
async fn two_who_renew_at_once_with_one_token_are_not_both_served() {
    let fixture = Fixture::start().await;
    let user = fixture.user_with(0).await;
    let session = sign_in(&fixture.server, &user.email).await;
    let nobody = connect_as(&fixture.server, None).await;
    let both = tokio::join!(
        refresh(&nobody, &session.refresh_token),
        refresh(&nobody, &session.refresh_token)
    );
    assert_eq!([both.0.is_ok(), both.1.is_ok()].iter().filter(|good| **good).count(), 1);
    fixture.stop().await;
}

#[tokio::test]
async fn sessions_are_listed_signed_out_and_revoked() {
    let fixture = Fixture::start().await;
    let user = fixture.user_with(0).await;
    let first = sign_in(&fixture.server, &user.email).await;
    let second = sign_in(&fixture.server, &user.email).await;
    let mut client = connect_as(&fixture.server, Some(&second.session_token)).await;
    let list = ListSessionsRequest {
        user_id: user.id.clone(),
    };
    let sessions = client
        .list_sessions(list.clone())
        .await
        .expect("own")
        .into_inner()
        .sessions;
    let seen: Vec<(&str, bool)> = sessions
        .iter()
        .map(|session| (session.id.as_str(), session.current))
        .collect();
    assert_eq!(
        seen,
        [(second.session_id.as_str(), true), (first.session_id.as_str(), false)]
    );
    assert!(sessions[0].user_agent.contains("tonic"), "{sessions:?}");

    connect_as(&fixture.server, Some(&first.session_token))
        .await
        .sign_out(SignOutRequest {})
        .await
        .expect("own");
    let status = who_am_i(&fixture, &first.session_token, &user.id)
        .await
        .expect_err("signed out");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unauthenticated, "SESSION_ENDED")
    );
    let status = refresh(&client, &first.refresh_token).await.expect_err("signed out");
    assert_eq!(reason(&status), "SESSION_ENDED");
    assert_eq!(
        client
            .list_sessions(list)
            .await
            .expect("own")
            .into_inner()
            .sessions
            .len(),
        1
    );

    let all = RevokeSessionsRequest {
        user_id: user.id.clone(),
        session_ids: Vec::new(),
    };
    assert_eq!(client.revoke_sessions(all).await.expect("own").into_inner().revoked, 1);
    let status = who_am_i(&fixture, &second.session_token, &user.id)
        .await
        .expect_err("revoked");
    assert_eq!(reason(&status), "SESSION_ENDED");
    fixture.stop().await;
}

#[tokio::test]
async fn the_oldest_session_makes_room_for_the_twenty_first() {
    let fixture = Fixture::start().await;
    let user = fixture.user_with(0).await;
    let mut sessions = Vec::new();
    for _ in 0..21 {
        sessions.push(sign_in(&fixture.server, &user.email).await);
    }
    assert!(who_am_i(&fixture, &sessions[0].session_token, &user.id).await.is_err());
    assert!(who_am_i(&fixture, &sessions[1].session_token, &user.id).await.is_ok());
    fixture.stop().await;
}

/// What is taken away is taken away at once: a token says what its owner was.
#[tokio::test]
async fn losing_a_role_ends_the_sessions_and_gaining_one_does_not() {
    let fixture = Fixture::start().await;
    let user = fixture.user_with(0).await;
    let session = sign_in(&fixture.server, &user.email).await;
    let mut operator = fixture.client.clone();
    let roles = |roles: &[i32]| SetRolesRequest {
        user_id: user.id.clone(),
        roles: roles.to_vec(),
    };
    operator.set_roles(roles(&[1, 2])).await.expect("an operator may");
    who_am_i(&fixture, &session.session_token, &user.id)
        .await
        .expect("still good");
    let renewed = refresh(&operator, &session.refresh_token).await.expect("good");
    assert_eq!(renewed.user.expect("the user").roles, [1, 2]);
    operator.set_roles(roles(&[2])).await.expect("an operator may");
    let status = who_am_i(&fixture, &renewed.session_token, &user.id)
        .await
        .expect_err("ended");
    assert_eq!(reason(&status), "SESSION_ENDED");
    for bad in [&[0][..], &[4], &[-1]] {
        let status = operator.set_roles(roles(bad)).await.expect_err("no role");
        assert_eq!(status.code(), Code::InvalidArgument);
    }
    fixture.stop().await;
}

#[tokio::test]
async fn an_operator_cannot_set_their_own_roles() {
    let fixture = Fixture::start().await;
    let own = sign_in(&fixture.server, crate::fixture::OPERATOR).await;
    let request = SetRolesRequest {
        user_id: own.user.expect("the user").id,
        roles: Vec::new(),
    };
    let status = fixture
        .client
        .clone()
        .set_roles(request)
        .await
        .expect_err("the last one");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::PermissionDenied, "NOT_YOUR_OWN")
    );
    fixture.stop().await;
}

/// Known and unknown accounts are throttled alike, and whoever hammers one does not keep its owner out of another.
#[tokio::test]
async fn after_five_wrong_passwords_one_waits_whether_there_is_such_an_account_or_not() {
    let fixture = Fixture::start().await;
    let (user, bystander) = (fixture.user_with(0).await, fixture.user_with(0).await);
    let mut client = connect_as(&fixture.server, None).await;
    let mut answers = Vec::new();
    for email in [user.email.as_str(), "nobody@example.org"] {
        let mut codes = Vec::new();
        for _ in 0..7 {
            let request = SignInRequest {
                email: email.to_owned(),
                password: "battery staple".into(),
            };
            let status = client.sign_in(request).await.expect_err("wrong");
            let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
            assert_eq!(delay.is_some(), status.code() == Code::ResourceExhausted);
            assert!(delay.is_none_or(|delay| delay <= Duration::from_secs(30)));
            codes.push((status.code(), reason(&status)));
        }
        answers.push(codes);
    }
    let wrong = (Code::Unauthenticated, "CREDENTIALS_WRONG".to_owned());
    let later = (Code::ResourceExhausted, "TOO_MANY_ATTEMPTS".to_owned());
    assert_eq!(answers[0][..5], vec![wrong; 5]);
    assert_eq!(answers[0][5..], vec![later; 2]);
    assert_eq!(answers[0], answers[1], "unknown accounts are answered alike");
    // Also the right password, from here: it was not looked at.
    let right = SignInRequest {
        email: user.email.clone(),
        password: PASSWORD.into(),
    };
    assert_eq!(
        client.sign_in(right).await.expect_err("not yet").code(),
        Code::ResourceExhausted
    );
    sign_in(&fixture.server, &bystander.email).await;
    fixture.stop().await;
}

/// Replicas of one store sign with the same keys, and a session is everywhere the same.
#[tokio::test]
async fn replicas_share_keys_and_sessions() {
    let fixture = Fixture::start().await;
    let other = Users::start(config(&fixture.folder, &fixture.tickets))
        .await
        .expect("it starts");
    let user = fixture.user_with(0).await;
    let session = sign_in(&other, &user.email).await;
    who_am_i(&fixture, &session.session_token, &user.id)
        .await
        .expect("good here too");
    let mut keys = Vec::new();
    for server in [&fixture.server, &other] {
        let answer = connect_as(server, None)
            .await
            .get_signing_keys(GetSigningKeysRequest {})
            .await;
        keys.push(answer.expect("public").into_inner());
    }
    assert_eq!(keys[0], keys[1]);
    assert_eq!(keys[0].keys.len(), 1);
    connect_as(&other, Some(&session.session_token))
        .await
        .sign_out(SignOutRequest {})
        .await
        .expect("own");
    assert!(who_am_i(&fixture, &session.session_token, &user.id).await.is_err());
    assert!(other.stop().await.drain.is_clean());
    fixture.stop().await;
}

/// The next key is published ten minutes ahead; with a rotation as short as that it is there at once.
#[tokio::test]
async fn the_next_key_is_published_before_it_signs() {
    let fixture = Fixture::start_with(|config| config.key_rotation = Duration::from_secs(60)).await;
    let user = fixture.user_with(0).await;
    let session = sign_in(&fixture.server, &user.email).await;
    let folder = &fixture.folder;
    let mut rotating = config(folder, &fixture.tickets);
    rotating.key_rotation = Duration::from_secs(60);
    let second = Users::start(rotating).await.expect("it starts");
    let keys = connect_as(&second, None)
        .await
        .get_signing_keys(GetSigningKeysRequest {})
        .await;
    let keys = keys.expect("public").into_inner().keys;
    assert_eq!(keys.len(), 2, "{keys:?}");
    let begins: Vec<i64> = keys
        .iter()
        .map(|key| key.signs_from.as_ref().expect("a time").seconds)
        .collect();
    assert!(begins[1] >= begins[0] + 540, "{begins:?}");
    let header = session.session_token.split('.').next().expect("a header").to_owned();
    let other = sign_in(&second, &user.email).await.session_token;
    assert!(other.starts_with(&header), "the old key still signs");
    assert!(second.stop().await.drain.is_clean());
    fixture.stop().await;
}

#[tokio::test]
async fn the_first_operator_is_made_with_the_store_alone() {
    let fixture = Fixture::start().await;
    let store = crate::fixture::store(&fixture.folder);
    let unknown = user_svc::offline::grant(store.as_str(), "nobody@example.org", identity::Roles::OPERATOR).await;
    assert!(
        matches!(unknown, Err(user_svc::offline::OfflineError::Unknown)),
        "{unknown:?}"
    );
    let no_address = user_svc::offline::grant(store.as_str(), "nobody", identity::Roles::OPERATOR).await;
    assert!(
        matches!(no_address, Err(user_svc::offline::OfflineError::Email(_))),
        "{no_address:?}"
    );
    let keys = user_svc::offline::signing_keys(store.as_str()).await.expect("keys");
    let published = fixture.client.clone().get_signing_keys(GetSigningKeysRequest {}).await;
    let published = published.expect("public").into_inner().keys;
    assert_eq!(
        keys.iter().map(|key| key.kid().to_string()).collect::<Vec<_>>(),
        [published[0].key_id.clone()]
    );
    fixture.stop().await;
}

#[tokio::test]
async fn whoever_signs_up_is_a_buyer_and_no_more() {
    let fixture = Fixture::start().await;
    let user = connect_as(&fixture.server, None).await.create_user(new_user()).await;
    assert_eq!(user.expect("new").into_inner().user.expect("the user").roles, [1]);
    fixture.stop().await;
}
