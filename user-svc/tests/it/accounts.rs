//! Accounts, sessions and wallets through the wire.

use proto::user::v1::{CreateUserRequest, GetUserRequest, SignInRequest, TopUpRequest};
use tonic::Code;

use crate::fixture::{Fixture, PASSWORD, euro, id, new_user, reason};

fn sign_in(email: &str, password: &str) -> SignInRequest {
    SignInRequest {
        email: email.to_owned(),
        password: password.to_owned(),
    }
}

#[tokio::test]
async fn an_account_is_made_once_and_signs_in() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client.clone();
    let request = CreateUserRequest {
        email: "Ada.Lovelace@Example.org".into(),
        ..new_user()
    };
    let user = client
        .create_user(request.clone())
        .await
        .expect("new")
        .into_inner()
        .user
        .expect("the user");
    assert_eq!(
        (user.email.as_str(), user.balance.clone()),
        ("ada.lovelace@example.org", euro(0))
    );
    assert_eq!(
        client
            .create_user(request.clone())
            .await
            .expect("a repeat")
            .into_inner()
            .user,
        Some(user.clone())
    );
    for changed in [
        CreateUserRequest {
            password: "another password".into(),
            ..request.clone()
        },
        CreateUserRequest {
            display_name: "Grace".into(),
            ..request.clone()
        },
        CreateUserRequest {
            currency_code: "USD".into(),
            ..request.clone()
        },
        CreateUserRequest {
            email: "grace@example.org".into(),
            ..request.clone()
        },
    ] {
        let status = client.create_user(changed).await.expect_err("another body");
        assert_eq!(
            (status.code(), reason(&status).as_str()),
            (Code::AlreadyExists, "REQUEST_ID_REUSED")
        );
    }
    let taken = CreateUserRequest {
        email: "ADA.LOVELACE@EXAMPLE.ORG".into(),
        ..new_user()
    };
    let status = client.create_user(taken).await.expect_err("taken");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::AlreadyExists, "EMAIL_TAKEN")
    );

    let session = client
        .sign_in(sign_in("ada.lovelace@EXAMPLE.org", PASSWORD))
        .await
        .expect("right")
        .into_inner();
    assert_eq!(session.user, Some(user));
    assert!(session.expires_at.is_some());
    let another = client
        .sign_in(sign_in("ada.lovelace@example.org", PASSWORD))
        .await
        .expect("right")
        .into_inner();
    assert_ne!(another.session_token, session.session_token);
    fixture.stop().await;
}

#[tokio::test]
async fn an_unknown_account_and_a_wrong_password_get_one_answer() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client.clone();
    let user = fixture.user_with(0).await;
    let wrong = client
        .sign_in(sign_in(&user.email, "battery staple"))
        .await
        .expect_err("wrong");
    let unknown = client
        .sign_in(sign_in("nobody@example.org", PASSWORD))
        .await
        .expect_err("unknown");
    assert_eq!(
        (wrong.code(), reason(&wrong).as_str()),
        (Code::Unauthenticated, "CREDENTIALS_WRONG")
    );
    assert_eq!(
        (wrong.code(), wrong.message(), wrong.details()),
        (unknown.code(), unknown.message(), unknown.details())
    );
    fixture.stop().await;
}

#[tokio::test]
async fn nothing_secret_is_in_the_file() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client.clone();
    let user = fixture.user_with(0).await;
    let session = client
        .sign_in(sign_in(&user.email, PASSWORD))
        .await
        .expect("right")
        .into_inner();
    for file in std::fs::read_dir(fixture.folder.path()).expect("the folder") {
        let bytes = std::fs::read(file.expect("a file").path()).expect("its bytes");
        let holds = |secret: &str| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!holds(PASSWORD) && !holds(&session.session_token) && !holds(&session.refresh_token));
    }
    fixture.stop().await;
}

#[tokio::test]
async fn a_wallet_is_topped_up_once_for_each_request_and_has_a_brim() {
    let fixture = Fixture::start().await;
    let mut client = fixture.client.clone();
    let user = fixture.user_with(0).await;
    let request = TopUpRequest {
        request_id: id(),
        user_id: user.id.clone(),
        amount: euro(100_000_000),
    };
    for _ in 0..2 {
        let balance = client
            .top_up(request.clone())
            .await
            .expect("topped up")
            .into_inner()
            .balance;
        assert_eq!(balance, euro(100_000_000));
    }
    let status = client
        .top_up(TopUpRequest {
            amount: euro(1),
            ..request.clone()
        })
        .await
        .expect_err("another body");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::AlreadyExists, "REQUEST_ID_REUSED")
    );
    let dollars = proto::common::v1::Money {
        currency_code: "USD".into(),
        minor_units: 1,
    };
    let mixed = TopUpRequest {
        request_id: id(),
        amount: Some(dollars),
        ..request.clone()
    };
    let status = client.top_up(mixed).await.expect_err("another currency");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::FailedPrecondition, "CURRENCY_MISMATCH")
    );
    assert_eq!(fixture.balance(&user).await, 100_000_000);

    let unknown = TopUpRequest {
        request_id: id(),
        user_id: id(),
        amount: euro(1),
    };
    let status = client.top_up(unknown).await.expect_err("unknown");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "USER_UNKNOWN")
    );
    let status = client
        .get_user(GetUserRequest { user_id: id() })
        .await
        .expect_err("unknown");
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::NotFound, "USER_UNKNOWN")
    );
    fixture.stop().await;
}
